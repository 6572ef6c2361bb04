"""The demo's pictures of accuracy and losses.

Each is a function from results to a figure, in a wide form and a narrow one for small screens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.shell_game import CHANCE
from kava.demo.arms import Group
from kava.demo.logs import RunLog
from kava.demo.results import Summary
from kava.format import percent
from kava.panels import panel_grid, row_axes, row_label, seeds_over_interval, step_axis
from kava.theme import (
    INK,
    KV,
    MUTED,
    NARROW,
    PAPER,
    REFERENCE,
    WIDE,
    WITHOUT,
    new_figure,
    percent_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP_COLORS: dict[Group, str] = {"kv": KV, "without": WITHOUT, "reference": REFERENCE}


def accuracy_by_arm(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy with its interval, the single seeds, and the chance line."""
    figure, axes = row_axes(len(summaries), narrow)
    places = range(len(summaries) - 1, -1, -1)
    percent_axis(axes, "x")
    axes.axvline(CHANCE, color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)), zorder=1)
    axes.annotate(
        f"a guess: {percent(CHANCE)}",
        (CHANCE, len(summaries) - 0.45),
        xytext=(4, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=8,
        va="center",
    )
    for place, summary in zip(places, summaries):
        color = GROUP_COLORS[summary.arm.group]
        seeds = [result.accuracy for result in summary.results]
        seeds_over_interval(
            axes, place, seeds, (summary.low, summary.high), color, percent(summary.accuracy)
        )
        row_label(axes, place, summary.arm.name, summary.arm.what, narrow)
    axes.set_xlabel("right answers to questions that no run was trained on")
    return figure


def accuracy_by_step(logs: Sequence[RunLog], narrow: bool = False) -> Figure:
    """One panel an arm, one line a seed: accuracy on held-out questions while training."""
    figure, panels = _panel_per_arm(logs, narrow, "right answers")
    for axes, own in panels:
        axes.axhline(CHANCE, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        for log in own:
            color = GROUP_COLORS[log.arm.group]
            axes.plot(*log.curve("eval_accuracy"), color=color, alpha=0.85)
    axes = panels[-1][0]
    axes.annotate(
        "a guess", (axes.get_xlim()[1], CHANCE), xytext=(0, 4), textcoords="offset points",
        ha="right", color=MUTED, fontsize=7.5,
    )  # fmt: skip
    percent_axis(axes)
    return figure


def kv_by_step(logs: Sequence[RunLog], narrow: bool = False) -> Figure:
    """One panel an arm: the KV loss on held-out samples, and that of the wrong sample's cache.

    Arms that do not match a cache have none.
    """
    logs = [log for log in logs if log.curve("eval_kv")[0]]
    figure, panels = _panel_per_arm(logs, narrow, "smooth L1")
    for axes, own in panels:
        for log in own:
            color = GROUP_COLORS[log.arm.group]
            axes.plot(*log.curve("eval_kv_wrong_sample"), color=MUTED, alpha=0.7, linewidth=1.1)
            axes.plot(*log.curve("eval_kv"), color=color, alpha=0.85)
    panels[0][0].set_yscale("log")
    panels[0][0].minorticks_off()
    axes, log = max(((axes, own[0]) for axes, own in panels), key=lambda pair: _apart(pair[1]))
    for text, name, color, place in (
        ("another sample's", "eval_kv_wrong_sample", MUTED, 4),
        ("its own", "eval_kv", INK, -4),
    ):
        steps, values = log.curve(name)
        axes.annotate(
            text, (steps[-1], values[-1]), xytext=(0, place), textcoords="offset points",
            ha="right", va="bottom" if place > 0 else "top", fontsize=7.5, color=color,
        )  # fmt: skip
    return figure


def _apart(log: RunLog) -> float:
    """How far the losses of a run's own and of another sample's target end apart."""
    return log.curve("eval_kv_wrong_sample")[1][-1] / log.curve("eval_kv")[1][-1]


def _panel_per_arm(
    logs: Sequence[RunLog], narrow: bool, what: str
) -> tuple[Figure, list[tuple[Axes, list[RunLog]]]]:
    """Panels with shared axes, each with the runs of its arm."""
    arms = list({log.arm.name: log.arm for log in logs}.values())
    figure, panels = panel_grid([arm.name for arm in arms], what, narrow=narrow)
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
        axes.set_yscale("log")
        axes.minorticks_off()
        low, high = axes.get_ylim()
        axes.set_ylim(low / 10, high)  # room for the labels below the lowest lines
        axes.set_xlabel("step")
        step_axis(axes, max(log.lines[-1]["step"] for log in logs))
    return figure


def _answer_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    """Of latent students only: a writing student's cross-entropy is over other tokens."""
    shown = [log for log in logs if log.arm.changes.get("student") != "explicit"]
    for log in shown:
        axes.plot(*log.curve("ce"), color=GROUP_COLORS[log.arm.group], alpha=0.7, linewidth=1.1)
    axes.set_title("Answer", pad=6, loc="left")
    axes.set_ylabel("cross-entropy, nats per token")
    _label_groups(axes, shown, "ce")


def _kv_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    shown = [log for log in logs if log.curve("eval_kv")[0]]
    for log in shown:
        color = GROUP_COLORS[log.arm.group]
        axes.plot(*log.curve("eval_kv"), color=color, alpha=0.8, linewidth=1.1)
        axes.plot(*log.curve("eval_kv_wrong_sample"), color=MUTED, alpha=0.8, linewidth=1.1)
    axes.set_title("KV cache, held-out", pad=6, loc="left")
    axes.set_ylabel("smooth L1 of keys and values")
    _label_below(axes, "another sample's", MUTED, shown, "eval_kv_wrong_sample")
    _label_below(axes, "its own", INK, shown, "eval_kv")


def _codi_loss(axes: Axes, logs: Sequence[RunLog]) -> None:
    shown = [log for log in logs if log.curve("codi")[0]]
    for log in shown:
        axes.plot(*log.curve("codi"), color=GROUP_COLORS[log.arm.group], alpha=0.7, linewidth=1.1)
    axes.set_title("Hidden state (CODI)", pad=6, loc="left")
    axes.set_ylabel("smooth L1")
    _label_groups(axes, shown, "codi")


def _label_groups(axes: Axes, logs: Sequence[RunLog], name: str) -> None:
    """Name the arms of each group once."""
    for group, color in GROUP_COLORS.items():
        own = [log for log in logs if log.arm.group == group]
        if own:
            names = list(dict.fromkeys(log.arm.name for log in own))
            _label_below(axes, _lines_of(names), color, own, name)


def _label_below(axes: Axes, text: str, color: str, logs: Sequence[RunLog], name: str) -> None:
    """Write below the end of the lowest line: losses fall, so that no other line runs there."""
    steps = logs[0].curve(name)[0]
    axes.annotate(
        text, (steps[-1], min(log.curve(name)[1][-1] for log in logs)), xytext=(0, -4),
        textcoords="offset points", ha="right", va="top", fontsize=8, color=color,
    )  # fmt: skip


def _lines_of(names: Sequence[str], per_line: int = 2) -> str:
    rows = [names[start : start + per_line] for start in range(0, len(names), per_line)]
    return ",\n".join(", ".join(row) for row in rows)


def accuracy_by_passes(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy against what an answer costs; arms at the same place are named in a stack."""
    figure = new_figure(NARROW if narrow else 0.75 * WIDE, 2.7)
    axes = figure.add_subplot()
    percent_axis(axes)
    axes.axhline(CHANCE, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
    passes = [summary.forward_passes for summary in summaries]
    margin = 0.6 if narrow else 1.0
    axes.set_xlim(min(passes) - margin, max(passes) + margin)
    axes.annotate(
        "a guess", (0.5, CHANCE), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="center", fontsize=7.5, color=MUTED,
    )  # fmt: skip
    stacks: dict[tuple[float, bool], int] = {}
    for summary in sorted(summaries, key=lambda s: s.accuracy):
        color = GROUP_COLORS[summary.arm.group]
        at = (summary.forward_passes, summary.accuracy)
        axes.plot(
            [at[0], at[0]], [summary.low, summary.high], color=color, linewidth=5, alpha=0.35,
            solid_capstyle="butt",
        )  # fmt: skip
        axes.plot(*at, "o", color=color, markersize=7, markeredgecolor=PAPER, markeredgewidth=0.8)
        upper = at[1] > 0.5
        height = stacks.get((at[0], upper), 0)
        stacks[at[0], upper] = height + 1
        axes.annotate(
            summary.arm.name, at, xytext=(0, (-1 if upper else 1) * (13 + 12 * height)),
            textcoords="offset points", ha="center", va="center", color=color, weight="bold",
            fontsize=8 if narrow else 9,
        )  # fmt: skip
    axes.set_xticks(range(int(min(passes)), int(max(passes)) + 1))
    axes.set_xlabel("forward passes of the model per answer")
    axes.set_ylabel("right answers")
    return figure
