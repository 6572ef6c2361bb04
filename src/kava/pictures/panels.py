"""Pieces that several pictures are made of: rows of arms, panels, cells, and the picture's key.

Whatever is drawn from numbers has a `Look`, and every look has its name in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kava.pictures.placement import spread, text_width, wrapped
from kava.pictures.theme import FAINT, INK, KV, MUTED, NARROW, PAPER, WIDE, new_figure
from kava.pictures.ticks import plain, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY_SIZE = 7.5
"""Points of the letters of a key."""

_INCH = 72.0
_MARGIN = 14.0  # points that the layout keeps free on both sides of a figure, together
_NAME, _WHAT, _VALUE = 9.0, 7.5, 9.0  # points of a row's letters


@dataclass(frozen=True)
class Look:
    """How one thing is drawn, and its name in the picture's key.

    Args:
        name: in words.
        color: where it has one of its own; else that of the arm it belongs to.
        marker: matplotlib's, of dots.
        dashes: lengths of strokes and gaps; empty for an unbroken line.
        width: of the line, in points; 0 for dots alone.
        alpha: how opaque it is.
    """

    name: str
    color: str = MUTED
    marker: str = ""
    dashes: tuple[float, ...] = ()
    width: float = 1.3
    alpha: float = 1.0

    def drawn(self, color: str | None = None, **changes: Any) -> dict[str, Any]:
        """What `Axes.plot` takes."""
        look: dict[str, Any] = {
            "label": self.name,
            "color": color or self.color,
            "linewidth": self.width,
            "linestyle": (0, self.dashes) if self.dashes else "solid" if self.width else "none",
            "alpha": self.alpha,
        }
        if self.width > 3:
            look["solid_capstyle"] = "butt"
        if self.marker:
            look |= {"marker": self.marker, "markersize": 5.5, "markeredgecolor": PAPER}
            look |= {"markeredgewidth": 0.6, "clip_on": False}
        return look | changes


SEED = Look("one seed", marker="o", width=0)
CURVE = Look("one seed", alpha=0.85)


def interval_look(confidence: float, color: str = MUTED) -> Look:
    """A bar for the interval of a mean."""
    return Look(f"{100 * confidence:g} % interval of the mean", color, width=5, alpha=0.35)


def level_look(name: str, color: str = MUTED) -> Look:
    """A dashed line at one height, such as that of a guess."""
    return Look(name, color, dashes=(3, 3), width=1.0)


def add_key(figure: Figure, looks: Sequence[Look]) -> None:
    """Name everything that was drawn, above the picture, which grows by the key's height."""
    from matplotlib.lines import Line2D

    room = figure.get_figwidth() * _INCH - _MARGIN
    handle, gap = 2.0 * KEY_SIZE, 3.2 * KEY_SIZE  # of a key's entry: its sign, and what is around
    names = [wrapped(look.name, room - handle - gap, KEY_SIZE) for look in looks]
    widths = [max(text_width(line, KEY_SIZE) for line in name.split("\n")) for name in names]
    fits = [
        n
        for n in range(1, len(looks) + 1)
        if sum(max(widths[i::n]) + handle + gap for i in range(n)) <= room
    ]
    num_columns = max(fits, default=1)
    rows = [names[i : i + num_columns] for i in range(0, len(names), num_columns)]
    height = KEY_SIZE * sum(1.25 * max(map(_lines, row)) + 0.5 for row in rows) + 10
    figure.set_figheight(figure.get_figheight() + height / _INCH)
    handles = []
    for i in _by_columns(len(looks), num_columns):
        sign = looks[i].drawn() | {"label": names[i]}
        sign.pop("clip_on", None)
        handles.append(Line2D([], [], **sign))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=num_columns, frameon=False,
        fontsize=KEY_SIZE, handlelength=2.0, handletextpad=0.6, columnspacing=1.4,
        borderaxespad=0.8, borderpad=0.0, labelcolor=MUTED,
    )  # fmt: skip


def _by_columns(count: int, num_columns: int) -> list[int]:
    """The order in which matplotlib, which fills columns, shows things row by row."""
    return [i for column in range(num_columns) for i in range(column, count, num_columns)]


@dataclass(frozen=True, kw_only=True)
class Row:
    """An arm in a picture of rows.

    Args:
        name: the arm's.
        what: below it, where there is room.
        color: of its dots, bar and name.
        seeds: a number for each of its runs.
        interval: of their mean.
        value: the mean as text.
    """

    name: str
    what: str
    color: str
    seeds: Sequence[float]
    interval: tuple[float, float]
    value: str


def row_picture(
    rows: Sequence[Row], limits: tuple[float, float], interval: Look, *, narrow: bool = False
) -> tuple[Figure, Axes]:
    """A row for each arm, the first on top: a dot for every seed over a bar for the interval.

    Names stand on the left of the rows, or above them on a small screen; means on their right.

    Args:
        rows: the arms.
        limits: of the axis across.
        interval: the look of the bars.
        narrow: for small screens.

    Returns:
        The figure, whose key is still to be added, and its axes; row i is at height
        `len(rows) - 1 - i`.
    """
    room = 205.0 if narrow else 175.0
    names = [wrapped(row.name, room, _NAME, bold=True) for row in rows]
    what = ["" if narrow else wrapped(row.what, room, _WHAT) for row in rows]
    lines = max(1.25 * (_NAME * _lines(n) + _WHAT * _lines(w)) for n, w in zip(names, what))
    pitch = lines + 30.0 if narrow else max(lines + 6.0, 30.0)
    figure = new_figure(NARROW if narrow else WIDE, (len(rows) * pitch + 52) / _INCH)
    axes = figure.add_subplot()
    axes.set_xlim(*limits)
    above = (lines + 14.0) / pitch if narrow else 0.55
    axes.set_ylim(-0.5 if not narrow else -15.0 / pitch, len(rows) - 1 + above)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    across = (1.9 if narrow else 3.6) * _INCH / (limits[1] - limits[0])
    for place, row, name, words in zip(range(len(rows) - 1, -1, -1), rows, names, what):
        axes.axhline(place, color=FAINT, linewidth=0.6, zorder=0, label="_row")
        axes.plot(row.interval, [place, place], **interval.drawn(row.color))
        moved, size = spread([seed * across for seed in row.seeds], room=10.0)
        axes.plot(
            row.seeds, [place + step / pitch for step in moved],
            **SEED.drawn(row.color, markersize=size),
        )  # fmt: skip
        _beside_row(axes, place, 1.0, 8, row.value, row.color)
        if narrow:
            _beside_row(axes, place, 0.0, 0, name, row.color, above=12.0)
        else:
            _beside_row(axes, place, 0.0, -8, name, row.color, below=words)
    axes.annotate(
        "mean", (1.0, len(rows) - 1), xytext=(8, 12), va="bottom", fontsize=KEY_SIZE, color=MUTED,
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="left",
    )  # fmt: skip
    return figure, axes


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _beside_row(
    axes: Axes,
    place: float,
    side: float,
    gap: float,
    text: str,
    color: str,
    *,
    below: str = "",
    above: float = 0.0,
) -> None:
    """Bold text beside a row or above it, and plain text below that."""
    at: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"), "textcoords": "offset points",
        "ha": "right" if gap < 0 else "left", "multialignment": "right" if gap < 0 else "left",
        "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},  # over a line behind it
    }  # fmt: skip
    half = 1.25 * _WHAT * _lines(below) / 2, 1.25 * _NAME * _lines(text) / 2
    axes.annotate(
        text, (side, place), xytext=(gap, above or half[0]), weight="bold", color=color,
        va="bottom" if above else "center", fontsize=_NAME, **at,
    )  # fmt: skip
    if below:
        axes.annotate(
            below, (side, place), xytext=(gap, -half[1]), fontsize=_WHAT, color=MUTED, va="center",
            **at,
        )  # fmt: skip


def panel_grid(
    titles: Sequence[tuple[str, str]], what: str, *, narrow: bool = False
) -> tuple[Figure, list[Axes]]:
    """Panels of one size with a title each, in rows of up to four, or of two on a small screen.

    All share their axes, so that panels side by side can be compared, and each has its own tick
    labels.

    Args:
        titles: of the panels, with their colours.
        what: they show, beside the first of each row.
        narrow: for small screens.
    """
    num_columns = 2 if narrow else min(max(len(titles), 2), 4)
    num_rows = -(-len(titles) // num_columns)
    width = NARROW if narrow else WIDE
    room = width * _INCH / num_columns - 38
    names = [wrapped(title, room, _NAME, bold=True) for title, _ in titles]
    lines = [
        max(map(_lines, names[i : i + num_columns])) for i in range(0, len(names), num_columns)
    ]
    height = sum(1.3 + 0.15 * count for count in lines) + 0.3
    figure = new_figure(width, height)
    grid = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes, name, (_, color) in zip(panels, names, titles):
        axes.set_title(name, pad=4, loc="left", color=color)
        axes.tick_params(labelbottom=True, labelleft=True)
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel(what)
    for axes in panels[max(len(titles) - num_columns, 0) : len(titles)]:
        axes.set_xlabel("step")
    return figure, panels[: len(titles)]


def plot_curve(axes: Axes, steps: Sequence[float], values: Sequence[float], **look: Any) -> None:
    """A line along steps or counts; a dot for a single value, whose line could not be seen."""
    if len(steps) == 1:
        look |= {"marker": "o", "markersize": 3.5, "clip_on": False}
    axes.plot(steps, values, **look)


def cells(axes: Axes, shares: Sequence[Sequence[float]], *, numbered: bool = False) -> None:
    """A cell for every number from 0 to 1, the larger the bluer, the first row on top.

    Args:
        axes: whose limits are set, and whose ticks are still to be.
        shares: rows of numbers.
        numbered: whether the numbers stand in the cells.
    """
    boxes, blue = [], []
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            boxes.append((x - 0.47, y - 0.45, x + 0.47, y + 0.45))
            blue.append(min(max(share, 0.0), 1.0))
            if numbered and share >= 0.005:
                axes.text(
                    x, y, plain(round(share, 2)), ha="center", va="center", fontsize=7,
                    color=PAPER if share > 0.6 else INK,
                )  # fmt: skip
    _blue_boxes(axes, boxes, blue)
    axes.set_xlim(-0.6, len(shares[0]) - 0.4)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _blue_boxes(
    axes: Axes, boxes: Sequence[tuple[float, float, float, float]], shares: Sequence[float]
) -> None:
    """Boxes (left, low, right, high) as blue as their shares, over a faint ground."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    corners = [((x0, y0), (x1, y0), (x1, y1), (x0, y1)) for x0, y0, x1, y1 in boxes]
    ground, blue = to_rgba(FAINT, 0.45), [to_rgba(KV, share) for share in shares]
    for colors, name in ((ground, "_under cells"), (blue, "cells")):
        axes.add_collection(PolyCollection(corners, facecolors=colors, linewidths=0, label=name))


def color_bar(
    figure: Figure, panels: Sequence[Axes], what: str, *, top: float = 1.0, text: Any = plain
) -> None:
    """What the blue of cells means: a scale on the right of panels.

    Args:
        figure: theirs.
        panels: of cells.
        what: the number that a full blue stands for `top` of.
        top: the largest number.
        text: a number as text.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top)), ax=list(panels), fraction=0.05, pad=0.02, aspect=18,
        shrink=0.9,
    )  # fmt: skip
    # drawn of the same ink as the cells, in place of an image, so that it follows a dark page
    axes, num_steps = bar.ax, 40
    for part in (*axes.collections, bar.outline):
        part.set_visible(False)
    steps = [(top * i / num_steps, (i + 0.5) / num_steps) for i in range(num_steps)]
    boxes = [(0.0, low, 1.0, low + top / num_steps) for low, _ in steps]
    _blue_boxes(axes, boxes, [share for _, share in steps])
    bar.set_label(wrapped(what, 0.8 * _INCH * figure.get_figheight(), 8.5))
    bar.minorticks_off()
    ticks(axes.yaxis, text)
    axes.tick_params(length=0)
