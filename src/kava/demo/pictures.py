"""The demo's pictures of accuracy and losses.

Each is a function from results to a figure, in a wide form and a narrow one for small screens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.shell_game import CHANCE
from kava.demo.arms import Group
from kava.demo.logs import RunLog
from kava.demo.results import CONFIDENCE, Summary
from kava.format import percent
from kava.pictures.panels import (
    CURVE,
    SEED,
    Look,
    Row,
    add_key,
    interval_look,
    level_look,
    panel_grid,
    plot_curve,
    row_picture,
)
from kava.pictures.placement import Mark, direct_labels, spread
from kava.pictures.theme import KV, MUTED, NARROW, REFERENCE, WIDE, WITHOUT, new_figure
from kava.pictures.ticks import (
    ALL_RIGHT,
    SOME,
    log_axis,
    percent_axis,
    plain,
    round_places,
    step_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP_COLORS: dict[Group, str] = {"kv": KV, "without": WITHOUT, "reference": REFERENCE}
GUESS = level_look(f"a guess: {percent(CHANCE)}")
INTERVAL = interval_look(CONFIDENCE)
OWN = Look("to the sample's own target, one seed", alpha=0.85)
OTHER = Look("to another sample's target", MUTED, dashes=(2.2, 1.4), width=1.1, alpha=0.9)
MEAN = Look("mean over seeds", marker="o", width=0)
RIGHT = "right answers, %"


def accuracy_by_arm(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy with its interval, the single seeds, and the chance line."""
    rows = [
        Row(
            name=summary.arm.name,
            what=summary.arm.what,
            color=GROUP_COLORS[summary.arm.group],
            seeds=[result.accuracy for result in summary.results],
            interval=(summary.low, summary.high),
            value=percent(summary.accuracy),
        )
        for summary in summaries
    ]
    figure, axes = row_picture(rows, ALL_RIGHT, INTERVAL, narrow=narrow)
    percent_axis(axes, "x")
    axes.axvline(CHANCE, zorder=1, **GUESS.drawn())
    axes.set_xlabel(f"{RIGHT}, to questions of no training data")
    add_key(figure, [SEED, INTERVAL, GUESS])
    return figure


def accuracy_by_step(logs: Sequence[RunLog], narrow: bool = False) -> Figure:
    """One panel an arm, one line a seed: accuracy on held-out questions while training."""
    figure, panels = _panel_per_arm(logs, narrow, RIGHT)
    for axes, own in panels:
        axes.axhline(CHANCE, **GUESS.drawn())
        for log in own:
            color = GROUP_COLORS[log.arm.group]
            plot_curve(axes, *log.curve("eval_accuracy"), **CURVE.drawn(color))
    percent_axis(panels[0][0])
    add_key(figure, [CURVE, GUESS])
    return figure


def kv_by_step(logs: Sequence[RunLog], narrow: bool = False) -> Figure:
    """One panel an arm: the KV loss on held-out samples, and that of the wrong sample's cache.

    Arms that do not match a cache have none.
    """
    logs = [log for log in logs if log.curve("eval_kv")[0]]
    figure, panels = _panel_per_arm(logs, narrow, "KV loss")
    for axes, own in panels:
        for log in own:
            color = GROUP_COLORS[log.arm.group]
            plot_curve(axes, *log.curve("eval_kv"), **OWN.drawn(color))
            plot_curve(axes, *log.curve("eval_kv_wrong_sample"), **OTHER.drawn())
    log_axis([axes for axes, _ in panels])
    add_key(figure, [OWN, OTHER])
    return figure


def _panel_per_arm(
    logs: Sequence[RunLog], narrow: bool, what: str
) -> tuple[Figure, list[tuple[Axes, list[RunLog]]]]:
    """Panels with shared axes, each with the runs of its arm."""
    arms = list({log.arm.name: log.arm for log in logs}.values())
    titles = [(arm.name, GROUP_COLORS[arm.group]) for arm in arms]
    figure, panels = panel_grid(titles, what, narrow=narrow)
    step_axis(panels[0], max(log.lines[-1]["step"] for log in logs))
    own = [[log for log in logs if log.arm.name == arm.name] for arm in arms]
    return figure, list(zip(panels, own))


def losses_by_step(logs: Sequence[RunLog], narrow: bool = False) -> Figure:
    """The terms of the loss against step, and the control: the cache of the wrong sample."""
    terms = [_answer_loss]
    if any(log.curve("eval_kv")[0] for log in logs):
        terms.append(_kv_loss)
    if any(log.curve("codi")[0] for log in logs):
        terms.append(_codi_loss)
    shape = (len(terms), 1) if narrow else (1, len(terms))
    width = NARROW if narrow else WIDE * max(len(terms), 2) / 3
    figure = new_figure(width, 2.3 * shape[0] + 0.1)
    panels = figure.subplots(*shape, squeeze=False).flatten().tolist()
    for axes, draw in zip(panels, terms):
        draw(axes, logs)
        axes.set_xlabel("step")
        step_axis(axes, max(log.lines[-1]["step"] for log in logs))
        log_axis([axes])
    looks = []
    drawn = [log for log in logs if not _writes(log) or log.curve("eval_kv")[0]]
    for group, color in GROUP_COLORS.items():
        names = dict.fromkeys(log.arm.name for log in drawn if log.arm.group == group)
        if names:
            looks.append(Look(", ".join(names), color))
    if _kv_loss in terms:
        looks.append(OTHER)
    add_key(figure, looks)
    return figure


def _answer_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    """Of latent students only: a writing student's cross-entropy is over other tokens."""
    _one_line_a_run(axes, [log for log in logs if not _writes(log)], "ce")
    axes.set_title("Answer, training", pad=6, loc="left")
    axes.set_ylabel("cross-entropy, nats per token")


def _writes(log: RunLog) -> bool:
    return log.arm.changes.get("student") == "explicit"


def _kv_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    shown = [log for log in logs if log.curve("eval_kv")[0]]
    _one_line_a_run(axes, shown, "eval_kv")
    for log in shown:
        plot_curve(axes, *log.curve("eval_kv_wrong_sample"), **OTHER.drawn())
    axes.set_title("KV cache, held-out", pad=6, loc="left")
    axes.set_ylabel("smooth L1 of keys and values")


def _codi_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    _one_line_a_run(axes, [log for log in logs if log.curve("codi")[0]], "codi")
    axes.set_title("Hidden state, training", pad=6, loc="left")
    axes.set_ylabel("smooth L1")


def _one_line_a_run(axes: Axes, logs: Sequence[RunLog], name: str) -> None:
    for log in logs:
        look = Look(log.arm.name, GROUP_COLORS[log.arm.group], width=1.1, alpha=0.8)
        plot_curve(axes, *log.curve(name), **look.drawn())


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
        color = GROUP_COLORS[summary.arm.group]
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
