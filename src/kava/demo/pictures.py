"""The demo's pictures of losses, and of accuracy against forward passes.

Each is a function from results to a figure, in a wide form and a narrow one for small screens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.shell_game import CHANCE
from kava.demo.results import CONFIDENCE, Summary
from kava.format import percent
from kava.pictures.panels import Look, add_key, interval_look, level_look, plot_curve
from kava.pictures.placement import Mark, direct_labels, spread
from kava.pictures.theme import MUTED, NARROW, WIDE, new_figure
from kava.pictures.ticks import SOME, log_axis, percent_axis, plain, round_places, step_axis
from kava.report.logs import ArmLogs
from kava.report.pictures import ROLE_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GUESS = level_look(f"a guess: {percent(CHANCE)}")
INTERVAL = interval_look(CONFIDENCE)
OTHER = Look("to another sample's target", MUTED, dashes=(2.2, 1.4), width=1.1, alpha=0.9)
MEAN = Look("mean over seeds", marker="o", width=0)
RIGHT = "right answers, %"


def losses_by_step(arms: Sequence[ArmLogs], narrow: bool = False) -> Figure:
    """The terms of the loss against step, and the control: the cache of the wrong sample."""
    panels = [_answer_loss]
    if any(arm.has("eval_kv") for arm in arms):
        panels.append(_kv_loss)
    if any(arm.has("codi") for arm in arms):
        panels.append(_codi_loss)
    shape = (len(panels), 1) if narrow else (1, len(panels))
    width = NARROW if narrow else WIDE * max(len(panels), 2) / 3
    figure = new_figure(width, 2.3 * shape[0] + 0.1)
    for axes, draw in zip(figure.subplots(*shape, squeeze=False).flatten().tolist(), panels):
        draw(axes, arms)
        axes.set_xlabel("step")
        step_axis(axes, max(run.metrics[-1]["step"] for arm in arms for run in arm.finished))
        log_axis([axes])
    names: dict[str, list[str]] = {}
    for arm in arms:
        if not _writes(arm) or arm.has("eval_kv"):
            names.setdefault(ROLE_COLORS[arm.role], []).append(arm.name)
    looks = [Look(", ".join(own), color) for color, own in names.items()]
    add_key(figure, [*looks, OTHER] if _kv_loss in panels else looks)
    return figure


def _answer_loss(axes: Axes, arms: Sequence[ArmLogs]) -> None:
    """Of latent students only: a writing student's cross-entropy is over other tokens."""
    _one_line_a_run(axes, [arm for arm in arms if not _writes(arm)], "ce")
    axes.set_title("Answer, training", pad=6, loc="left")
    axes.set_ylabel("cross-entropy, nats per token")


def _writes(arm: ArmLogs) -> bool:
    return arm.settings.get("student") == "explicit"


def _kv_loss(axes: Axes, arms: Sequence[ArmLogs]) -> None:
    _one_line_a_run(axes, arms, "eval_kv")
    for run in (run for arm in arms if arm.has("eval_kv") for run in arm.finished):
        plot_curve(axes, *run.curve("eval_kv_wrong_sample"), **OTHER.drawn())
    axes.set_title("KV cache, held-out", pad=6, loc="left")
    axes.set_ylabel("smooth L1 of keys and values")


def _codi_loss(axes: Axes, arms: Sequence[ArmLogs]) -> None:
    _one_line_a_run(axes, arms, "codi")
    axes.set_title("Hidden state, training", pad=6, loc="left")
    axes.set_ylabel("smooth L1")


def _one_line_a_run(axes: Axes, arms: Sequence[ArmLogs], name: str) -> None:
    for arm in (arm for arm in arms if arm.has(name)):
        look = Look(arm.name, ROLE_COLORS[arm.role], width=1.1, alpha=0.8)
        for run in arm.finished:
            plot_curve(axes, *run.curve(name), **look.drawn())


def accuracy_by_passes(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy against what an answer costs; arms at the same place stand side by side."""
    width = NARROW if narrow else WIDE
    figure = new_figure(width, max(3.0, 0.2 * len(summaries) + 1.2))
    axes = figure.add_subplot()
    percent_axis(axes)
    axes.axhline(CHANCE, zorder=0, **GUESS.drawn())
    passes = [summary.forward_passes for summary in summaries]
    margin = max(1.0, (0.35 if narrow else 0.25) * (max(passes) - min(passes)))
    axes.set_xlim(min(passes) - margin, max(passes) + margin)
    point = (max(passes) - min(passes) + 2 * margin) / (72 * (width - 0.8))  # of the page
    marks = []
    for x, summary in zip(_side_by_side(summaries, point), summaries):
        color = ROLE_COLORS[summary.arm.role]
        axes.plot([x, x], [summary.low, summary.high], **INTERVAL.drawn(color))
        axes.plot(x, summary.accuracy, **MEAN.drawn(color))
        marks.append(Mark(x, summary.accuracy, summary.arm.name, color, summary.low, summary.high))
    places = [place for place in round_places(*axes.get_xlim(), SOME) if place == round(place)]
    axes.set_xticks(places, map(plain, places))
    axes.set_xlabel("forward passes of the model per answer")
    axes.set_ylabel(RIGHT)
    add_key(figure, [MEAN, INTERVAL, GUESS])
    direct_labels(axes, marks, clear_of=[CHANCE])
    return figure


def _side_by_side(summaries: Sequence[Summary], point: float) -> list[float]:
    """The passes of each arm, moved apart where arms with the same passes are as often right."""
    places = [summary.forward_passes for summary in summaries]
    for passes in set(places):
        own = [i for i, place in enumerate(places) if place == passes]
        heights = [150 * summaries[i].accuracy for i in own]  # in points of the page
        for i, step in zip(own, spread(heights, room=40.0)[0]):
            places[i] += step * point
    return places
