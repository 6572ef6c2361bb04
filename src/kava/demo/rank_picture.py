"""The picture of rank: how often the student is right, and how good the map is, by its terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.shell_game import CHANCE
from kava.demo.hetero_verdicts import rank_of
from kava.demo.results import Summary
from kava.theme import KV, MUTED, NARROW, PAPER, REFERENCE, WIDE, new_figure, percent_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_by_rank(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy above, held-out R² below, against the number of terms; the full map as a line."""
    ranked = sorted(
        ((rank, s) for s in summaries if (rank := rank_of(s)) is not None), key=lambda pair: pair[0]
    )
    full = next((s for s in summaries if s.arm.name == "full"), None)
    figure = new_figure(NARROW if narrow else 0.75 * WIDE, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    _accuracies(upper, ranked, full)
    _explained(lower, ranked, full)
    lower.set_xscale("log", base=2)
    ranks = [rank for rank, _ in ranked]
    lower.set_xlim(ranks[0] / 1.25, ranks[-1] * 1.25)
    lower.set_xticks(ranks, [str(rank) for rank in ranks])
    lower.minorticks_off()
    lower.set_xlabel("terms of the map (head mix ⊗ dim map)")
    return figure


def _accuracies(axes: Axes, ranked: Sequence[tuple[int, Summary]], full: Summary | None) -> None:
    percent_axis(axes)
    axes.set_ylabel("right answers")
    axes.axhline(CHANCE, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
    _say_at_right(axes, "a guess", CHANCE, MUTED)
    if full is not None:
        axes.axhspan(full.low, full.high, color=REFERENCE, alpha=0.18, linewidth=0, zorder=0)
        axes.axhline(full.accuracy, color=REFERENCE, linewidth=1.1, zorder=1)
        _say_at_right(axes, "full map", full.accuracy, REFERENCE)
    axes.plot([rank for rank, _ in ranked], [s.accuracy for _, s in ranked], color=KV, alpha=0.85)
    for rank, summary in ranked:
        axes.plot(
            [rank, rank], [summary.low, summary.high], color=KV, linewidth=5, alpha=0.35,
            solid_capstyle="butt",
        )  # fmt: skip
        seeds = [result.accuracy for result in summary.results]
        axes.plot(
            [rank] * len(seeds), seeds, "o", color=KV, markersize=5.5, markeredgecolor=PAPER,
            markeredgewidth=0.6,
        )  # fmt: skip


def _explained(axes: Axes, ranked: Sequence[tuple[int, Summary]], full: Summary | None) -> None:
    known = [(rank, s.r_squared) for rank, s in ranked if s.r_squared is not None]
    axes.set_ylabel("held-out R²")
    axes.set_ylim(-0.04, 1.06)
    axes.set_yticks([0, 0.5, 1.0], ["0", "0.5", "1"])
    if full is not None and full.r_squared is not None:
        axes.axhline(full.r_squared, color=REFERENCE, linewidth=1.1, zorder=1)
        _say_at_right(axes, "full map", full.r_squared, REFERENCE)
    axes.plot(
        [rank for rank, _ in known], [value for _, value in known], "o-", color=KV, alpha=0.85,
        markersize=5.5, markeredgecolor=PAPER, markeredgewidth=0.6,
    )  # fmt: skip


def _say_at_right(axes: Axes, text: str, height: float, color: str) -> None:
    """Beyond the right end, where no line runs."""
    axes.annotate(
        text, (1.0, height), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", ha="left", va="center", fontsize=7.5, color=color,
    )  # fmt: skip
