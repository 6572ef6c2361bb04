"""The picture of rank: how often the student is right, and how good the map is, by its terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.shell_game import CHANCE
from kava.demo.hetero_verdicts import rank_of
from kava.demo.pictures import GUESS, INTERVAL, RIGHT
from kava.demo.results import Summary
from kava.pictures.panels import SEED, Look, add_key, plot_curve
from kava.pictures.placement import spread
from kava.pictures.theme import KV, NARROW, REFERENCE, WIDE, new_figure
from kava.pictures.ticks import ALL_RIGHT, percent_axis, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEAN = Look("mean", KV, alpha=0.85)
FULL = Look("any linear map (full)", REFERENCE, dashes=(6, 2), width=1.2)
FULL_INTERVAL = Look("interval of full", REFERENCE, width=6, alpha=0.18)


def accuracy_by_rank(summaries: Sequence[Summary], narrow: bool = False) -> Figure:
    """Accuracy above, held-out R² below, against the number of terms; the full map as a line."""
    ranked = sorted(
        ((rank, s) for s in summaries if (rank := rank_of(s)) is not None), key=lambda pair: pair[0]
    )
    full = next((s for s in summaries if s.arm.name == "full"), None)
    width = NARROW if narrow else 0.75 * WIDE
    figure = new_figure(width, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    ranks = [rank for rank, _ in ranked]
    lower.set_xscale("log", base=2)
    lower.set_xlim(ranks[0] / 1.3, ranks[-1] * 1.3)
    room = 72 * (width - 0.9)  # of the axis across, in points of the page
    shown = ranks[:: -(-26 * len(ranks) // round(room))]
    lower.set_xticks(shown, [str(rank) for rank in shown])
    lower.minorticks_off()
    upper.tick_params(labelbottom=True)
    lower.set_xlabel("terms of the map (head mix ⊗ dim map)")
    point = (ranks[-1] / ranks[0] * 1.69) ** (1 / room)  # a factor of the ranks
    _accuracies(upper, ranked, full, point, 0.4 * room / (len(ranks) + 1))
    _explained(lower, ranked, full)
    looks = [SEED, MEAN, INTERVAL, GUESS]
    add_key(figure, [*looks, FULL, FULL_INTERVAL] if full is not None else looks)
    return figure


def _accuracies(
    axes: Axes,
    ranked: Sequence[tuple[int, Summary]],
    full: Summary | None,
    point: float,
    room: float,
) -> None:
    percent_axis(axes)
    axes.set_ylabel(RIGHT)
    axes.axhline(CHANCE, zorder=0, **GUESS.drawn())
    if full is not None:
        axes.axhspan(
            full.low, full.high, color=REFERENCE, alpha=FULL_INTERVAL.alpha, linewidth=0, zorder=0,
            label=FULL_INTERVAL.name,
        )  # fmt: skip
        axes.axhline(full.accuracy, zorder=1, **FULL.drawn())
    ranks = [rank for rank, _ in ranked]
    axes.plot(ranks, [s.accuracy for _, s in ranked], **MEAN.drawn())
    for rank, summary in ranked:
        axes.plot([rank, rank], [summary.low, summary.high], **INTERVAL.drawn(KV))
        seeds = [result.accuracy for result in summary.results]
        moved, size = spread([150 * seed for seed in seeds], room=min(room, 14.0))
        axes.plot([rank * point**step for step in moved], seeds, **SEED.drawn(KV, markersize=size))


def _explained(axes: Axes, ranked: Sequence[tuple[int, Summary]], full: Summary | None) -> None:
    known = [(rank, s.r_squared) for rank, s in ranked if s.r_squared is not None]
    axes.set_ylabel("held-out R²")
    axes.set_ylim(*ALL_RIGHT)
    ticks(axes.yaxis)
    if full is not None and full.r_squared is not None:
        axes.axhline(full.r_squared, zorder=1, **FULL.drawn())
    plot_curve(axes, [rank for rank, _ in known], [value for _, value in known], **MEAN.drawn())
