"""Heat maps of which teacher is listened to: by kind of sample, and by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.pictures.panels import cells, color_bar
from kava.pictures.placement import wrapped
from kava.pictures.theme import INK, NARROW, PAPER, WIDE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


@dataclass(frozen=True)
class HeatMap:
    """Shares of teachers.

    Args:
        title: above the panel.
        rows: names of the rows, such as kinds of samples.
        teachers: names of the columns.
        shares: one row of shares for each name, from 0 to 1.
    """

    title: str
    rows: Sequence[str]
    teachers: Sequence[str]
    shares: Sequence[Sequence[float]]


def heat_maps_picture(maps: Sequence[HeatMap], what: str, narrow: bool = False) -> Figure:
    """A panel for each map, all of one scale; every cell has its number.

    Args:
        maps: at least one.
        what: what a row is.
        narrow: for small screens.
    """
    columns = 1 if narrow else min(COLUMNS, len(maps))
    lines = -(-len(maps) // columns)
    tallest = max(len(one.rows) for one in maps)
    width = NARROW if narrow else WIDE
    titles = [wrapped(one.title, 72 * (width - 1.6) / columns - 20, 9) for one in maps]
    most = max(title.count("\n") for title in titles)
    figure = new_figure(width, (1.0 + 0.32 * tallest + 0.16 * most) * lines + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    alike = len({tuple(one.rows) for one in maps}) == 1
    for place, (axes, one, title) in enumerate(zip(panels, maps, titles)):
        cells(axes, [list(row) for row in one.shares])
        axes.set_title(title, loc="left", pad=6, fontsize=9)
        first = place % columns == 0
        axes.set_yticks(range(len(one.rows)), one.rows if first or not alike else [])
        axes.set_xticks(range(len(one.teachers)), one.teachers, rotation=20, ha="right")
        axes.tick_params(labelsize=8)
        if first:
            axes.set_ylabel(what, fontsize=8)
        _number(axes, one.shares)
    for axes in panels[len(maps) :]:
        axes.set_visible(False)
    color_bar(figure, panels[: len(maps)], "share of the teacher", top=1.0)
    return figure


def _number(axes: Axes, shares: Sequence[Sequence[float]]) -> None:
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            color = PAPER if value > 0.6 else INK
            text = f"{100 * value:.0f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
