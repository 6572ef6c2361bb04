"""Costs for the eye: one table, and a picture of accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.evaluate.costs import Cost
from kava.format import columns, number, percent, percents
from kava.theme import (
    FAINT,
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

HEADER = (
    "model", "reasoning", "batch", "accuracy", "interval", "passes", "tokens", "ms / answer",
    "tokens / s", "passes ÷ written", "time ÷ written", "in rounds",
)  # fmt: skip

NOTES = """Passes and tokens are means per answer; in a batch, all answers pay for the longest one.
Tokens are generated ones: latents are none, so tokens / s compares models of one kind alone."""


def costs_table(costs: Sequence[Cost]) -> str:
    """A row for each model and batch size, and what the columns mean."""
    confidence = f"{costs[0].figures['confidence']:.0%}"
    header = [f"{confidence} {name}" if name == "interval" else name for name in HEADER]
    related = costs[0].time_ratio is not None
    rows = [_row(cost) for cost in costs]
    kept = len(HEADER) if related else len(HEADER) - 3
    lines = columns([row[:kept] for row in [header, *rows]], left=2)
    return "\n".join([*lines, "", NOTES])


def _row(cost: Cost) -> list[str]:
    figures, ratio = cost.figures, cost.time_ratio
    return [
        cost.label,
        cost.thinks,
        str(cost.batch_size),
        percent(figures["accuracy"]),
        percents(figures["accuracy_low"], figures["accuracy_high"]),
        f"{figures['forward_passes']:.1f}",
        f"{figures['num_tokens'] / figures['num_items']:.1f}",
        number(1000 * figures["seconds_per_answer"]),
        number(figures["tokens_per_second"]),
        number(cost.passes_ratio, 2),
        "" if ratio is None else number(ratio.value, 2),
        "" if ratio is None else f"{number(ratio.low, 2)} to {number(ratio.high, 2)}",
    ]


def costs_picture(costs: Sequence[Cost], narrow: bool = False) -> Figure:
    """Accuracy with its interval against the time of an answer, a panel for each batch size.

    Args:
        costs: of `measure_costs`.
        narrow: for small screens.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes = list(dict.fromkeys(cost.batch_size for cost in costs))
    num_columns = 1 if narrow else min(len(sizes), 2)
    num_rows = -(-len(sizes) // num_columns)
    figure = new_figure(NARROW if narrow else WIDE, 2.4 * num_rows + 0.3)
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes in panels[len(sizes) :]:
        axes.set_visible(False)
    for axes, size in zip(panels, sizes):
        axes.set_title(f"batches of {size}" if size > 1 else "one at a time", loc="left", pad=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds per answer")
        axes.grid(axis="y", color=FAINT, linewidth=0.5)
        percent_axis(axes)
        axes.margins(x=0.25)
        _points(axes, [cost for cost in costs if cost.batch_size == size])
    for row in grid:
        row[0].set_ylabel("right answers")
    return figure


def _points(axes: Axes, costs: Sequence[Cost]) -> None:
    for place, cost in enumerate(sorted(costs, key=lambda c: c.figures["seconds_per_answer"])):
        figures = cost.figures
        x, y = 1000 * figures["seconds_per_answer"], figures["accuracy"]
        color, marker = _look(cost)
        ends = [[y - figures["accuracy_low"]], [figures["accuracy_high"] - y]]
        axes.errorbar(
            [x], [y], yerr=ends, color=color, marker=marker, markersize=7, elinewidth=1.4,
            markeredgecolor=PAPER, markeredgewidth=0.8, clip_on=False, zorder=3,
        )  # fmt: skip
        # neighbours in time stand above and below in turn, away from the edge of the picture
        up = y < 0.15 or (y < 0.85 and place % 2 == 0)
        axes.annotate(
            cost.label, (x, figures["accuracy_high"] if up else figures["accuracy_low"]),
            xytext=(0, (4 if up else -4) * (1 + 2.5 * (place % 3))), textcoords="offset points",
            ha="center", va="bottom" if up else "top", fontsize=8,
            color=INK if color != MUTED else MUTED,
        )  # fmt: skip


def _look(cost: Cost) -> tuple[str, str]:
    """Colour and marker: written reasoning, latents, and neither."""
    if cost.writes:
        return REFERENCE, "s"
    return (KV, "o") if "latents" in cost.thinks else (WITHOUT, "^")
