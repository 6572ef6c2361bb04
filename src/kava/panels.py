"""Pieces that several pictures are made of: a panel for each arm, steps, seeds over intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.theme import FAINT, INK, MUTED, NARROW, PAPER, WIDE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_TITLE = 16
"""Characters that fit over a panel; a longer title is set smaller."""


def panel_grid(
    titles: Sequence[str], what: str, *, narrow: bool = False, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Panels of one size with a title each, in rows of four, or of two on a small screen.

    Args:
        titles: of the panels.
        what: they show, beside the first of each row.
        narrow: for small screens.
        share_y: whether the panels measure the same; only then may they share an axis.
    """
    num_columns = 2 if narrow else 4
    num_rows = -(-len(titles) // num_columns)
    figure = new_figure(NARROW if narrow else WIDE, 1.45 * num_rows + 0.35)
    grid = figure.subplots(num_rows, num_columns, sharex=True, sharey=share_y, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes, title in zip(panels, titles):
        size = 9 * min(1.0, LONGEST_TITLE / len(title))
        axes.set_title(title, pad=4, loc="left", fontsize=size)
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel(what)
    for axes in panels[max(len(titles) - num_columns, 0) : len(titles)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    return figure, panels[: len(titles)]


def step_axis(axes: Axes, last_step: int) -> None:
    """Steps from 0 to the last, with a tick at both ends and in the middle."""
    axes.set_xlim(0, last_step * 1.02)
    ticks = [0, last_step // 2, last_step]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])


def row_axes(count: int, narrow: bool) -> tuple[Figure, Axes]:
    """One row for each of so many arms, the first on top at `count - 1`; no vertical axis."""
    figure = new_figure(NARROW if narrow else WIDE, 0.42 * count + 0.75)
    axes = figure.add_subplot()
    axes.set_ylim(-0.6, count - 0.1)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    return figure, axes


def seeds_over_interval(
    axes: Axes,
    place: float,
    seeds: Sequence[float],
    interval: tuple[float, float],
    color: str,
    value: str,
) -> None:
    """A row: a dot for every seed over a bar for the interval, and a value as text on the right."""
    axes.axhline(place, color=FAINT, linewidth=0.6, zorder=0)
    axes.plot(interval, [place, place], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
    axes.plot(
        seeds, [place] * len(seeds), "o", color=color, markersize=5.5,
        markeredgecolor=PAPER, markeredgewidth=0.6, clip_on=False,
    )  # fmt: skip
    axes.annotate(
        value, (1.0, place), xycoords=("axes fraction", "data"), xytext=(50, 0),
        textcoords="offset points", ha="right", va="center", color=color, weight="bold",
    )  # fmt: skip


def row_label(axes: Axes, place: float, name: str, what: str, narrow: bool) -> None:
    """On the left of a row: the arm's name and, where there is room, what it is."""
    axes.annotate(
        name, (0, place), xytext=(-8, 0 if narrow else 5), va="center", weight="bold", color=INK,
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
    )  # fmt: skip
    if not narrow:
        axes.annotate(
            what, (0, place), xytext=(-8, -6), va="center", fontsize=7.5, color=MUTED,
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        )  # fmt: skip
