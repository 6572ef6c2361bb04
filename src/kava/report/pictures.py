"""The pictures of a study's numbers: seeds over intervals, differences, curves by arm.

Each is a function from logs to a figure, in a wide form and a narrow one for small screens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kava.format import percent, points
from kava.panels import panel_grid, row_axes, row_label, seeds_over_interval, step_axis
from kava.report.kinds import NAMES, groups_of_kind
from kava.report.logs import ArmLogs, Role
from kava.report.verdicts import Compared
from kava.theme import FAINT, INK, KV, MUTED, REFERENCE, WITHOUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

ROLE_COLORS: Mapping[Role, str] = {
    "baseline": REFERENCE,
    "treatment": KV,
    "control": WITHOUT,
    "reference": MUTED,
}
Interval = tuple[float, float]
LEAST_RATIO = 5.0
"""From the lower to the upper end of a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """A quantity in a panel.

    Args:
        name: in the logs.
        label: in words.
        color: of its lines; None: that of the arm's role.
        thin: whether it stands back.
    """

    name: str
    label: str
    color: str | None = None
    thin: bool = False


@dataclass(frozen=True)
class Curves:
    """What a picture of curves shows.

    Args:
        what: beside the panels.
        lines: the quantities of a panel.
        log: whether the axis is logarithmic.
        zero: whether the axis begins at 0.
    """

    what: str
    lines: tuple[Line, ...]
    log: bool = False
    zero: bool = False


CURVES: Mapping[str, Curves] = {
    "accuracy_curves": Curves("right answers", (Line("eval_accuracy", "accuracy"),), zero=True),
    "ce_curves": Curves(
        "nats per token",
        (Line("ce", "training", MUTED, thin=True), Line("eval_ce", "held-out")),
    ),
    "kv_curves": Curves(
        "KV loss",
        (
            Line("eval_kv_wrong_sample", "another sample's", MUTED, thin=True),
            Line("eval_kv", "its own"),
        ),
        log=True,
    ),
    "cka_curves": Curves(
        "CKA with the target",
        (Line("eval_cka_values", "values", WITHOUT), Line("eval_cka_keys", "keys", KV)),
    ),
    "gradient_curves": Curves("gradient norm", (Line("grad_norm", "gradient norm"),), log=True),
    "entropy_curves": Curves(
        "attention entropy, nats", (Line("eval_attention_entropy", "entropy"),)
    ),
}
"""Picture → what it shows."""


def accuracy_by_arm(
    arms: Sequence[ArmLogs], intervals: Mapping[str, Interval], narrow: bool = False
) -> Figure:
    """A dot for every seed over the arm's interval, and the baseline's mean as a line.

    Args:
        arms: with a finished run each, the baseline first if it is among them.
        intervals: of the accuracy, by arm.
        narrow: for small screens.
    """
    figure, axes = row_axes(len(arms), narrow)
    ends = [end for arm in arms for end in (*intervals[arm.name], *arm.accuracies)]
    _share_axis(axes, min(ends), max(ends), narrow)
    if arms[0].role == "baseline" and arms[0].accuracy is not None:
        axes.axvline(arms[0].accuracy, color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)), zorder=1)
    for place, arm in zip(range(len(arms) - 1, -1, -1), arms):
        value = percent(arm.accuracy or 0.0)
        color = ROLE_COLORS[arm.role]
        seeds_over_interval(axes, place, arm.accuracies, intervals[arm.name], color, value)
        row_label(axes, place, arm.name, arm.role, narrow)
    axes.set_xlabel("right answers")
    return figure


def differences(
    compared: Sequence[Compared], minimum_effect: float, narrow: bool = False
) -> Figure:
    """The difference to the baseline: its interval, every seed, and what would be of interest."""
    figure, axes = row_axes(len(compared), narrow)
    ends = [0.0, minimum_effect, -minimum_effect]
    for one in compared:
        ends += [one.comparison.low, one.comparison.high, *one.comparison.seed_differences]
    room = 0.06 * (max(ends) - min(ends))
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.axvspan(-minimum_effect, minimum_effect, color=FAINT, alpha=0.45, lw=0, zorder=0)
    axes.axvline(0.0, color=INK, linewidth=0.9, zorder=1)
    for place, one in zip(range(len(compared) - 1, -1, -1), compared):
        found = one.comparison
        seeds_over_interval(
            axes, place, found.seed_differences, (found.low, found.high),
            ROLE_COLORS[one.arm.role], points(found.difference, unit=False),
        )  # fmt: skip
        row_label(axes, place, one.arm.name, one.verdict.kind, narrow)
    axes.xaxis.set_major_locator(_few_ticks(narrow))
    axes.xaxis.set_major_formatter(lambda x, _: points(x, unit=False).removesuffix(".0"))
    axes.set_xlabel("points more than the baseline")
    return figure


def curves_by_arm(arms: Sequence[ArmLogs], curves: Curves, narrow: bool = False) -> Figure:
    """A panel for each arm and a line for each seed; the first arm's mean stands in all panels.

    Panels share an axis only where they measure the same (`kava.report.kinds`), and only then
    does the first arm's mean stand beside the others.
    """
    main = curves.lines[-1].name
    alike = main not in NAMES or len(set(groups_of_kind(main, arms).values())) == 1
    figure, panels = panel_grid(
        [arm.name for arm in arms], curves.what, narrow=narrow, share_y=alike
    )
    for axes, arm in zip(panels, arms):
        for line in curves.lines:
            for run in arm.finished:
                axes.plot(
                    *run.curve(line.name), color=line.color or ROLE_COLORS[arm.role],
                    alpha=0.85, linewidth=1.0 if line.thin else 1.3, linestyle=_style(line),
                )  # fmt: skip
        if main == "eval_accuracy" and arm is not arms[0]:
            axes.plot(
                *_mean_curve(arms[0], main), color=MUTED, linewidth=1.0, linestyle=(0, (3, 2))
            )
        if not curves.log:
            axes.locator_params(axis="y", nbins=4)
        if not alike:
            axes.tick_params(axis="y", labelsize=7)
    if curves.log:
        for axes in panels:
            _log_axis(axes)
    if curves.zero:  # once all is drawn: an axis with a limit no longer grows
        for axes in panels:
            axes.set_ylim(bottom=0)
    if main == "eval_accuracy":
        panels[0].yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    last = max(run.metrics[-1]["step"] for arm in arms for run in arm.finished)
    step_axis(panels[0], last)
    if len(curves.lines) > 1:
        _legend(figure, curves.lines, ROLE_COLORS[arms[0].role])
    return figure


def _log_axis(axes: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    if high / low < LEAST_RATIO:  # a narrow range would look like a change
        middle, reach = (low * high) ** 0.5, LEAST_RATIO**0.5
        axes.set_ylim(middle / reach, middle * reach)


def _legend(figure: Figure, lines: Sequence[Line], own: str) -> None:
    """The names of the lines above the panels, where no line runs."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=line.color or own, linestyle=_style(line), label=line.label)
        for line in reversed(lines)
    ]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=len(lines), frameon=False, fontsize=7.5,
        handlelength=1.6, columnspacing=1.4, borderaxespad=0.0, labelcolor=MUTED,
    )  # fmt: skip


def _style(line: Line) -> Any:
    return (0, (2.2, 1.2)) if line.thin else "solid"


def _mean_curve(arm: ArmLogs, name: str) -> tuple[list[int], list[float]]:
    """Over the runs that were evaluated at the first run's steps."""
    steps = arm.finished[0].curve(name)[0]
    values = [run.curve(name)[1] for run in arm.finished if run.curve(name)[0] == steps]
    return steps, [sum(column) / len(column) for column in zip(*values)]


def _share_axis(axes: Axes, low: float, high: float, narrow: bool) -> None:
    """Per cents, not narrower than ten points, so that noise does not look like a difference."""
    middle, half = (low + high) / 2, max((high - low) * 0.56, 0.05)
    axes.set_xlim(max(-0.015, middle - half), min(1.015, middle + half))
    axes.xaxis.set_major_locator(_few_ticks(narrow))
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")


def _few_ticks(narrow: bool) -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3 if narrow else 6)
