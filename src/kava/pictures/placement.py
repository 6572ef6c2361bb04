"""Where dots and names go in a picture, so that none hides another.

Both placements are functions of the numbers alone: the same numbers give the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kava.pictures.theme import MUTED, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

Point = tuple[float, float]
"""Across and up, in pixels of the drawn picture."""

DOT = 5.5
"""Diameter of a dot, in points."""

NEAR = 12.0
"""Points from a mark up to which its name needs no line to it."""

DISTANCES = (5.0, 9.0, 14.0, 22.0, 32.0, 45.0, 60.0, 80.0, 105.0, 135.0, 170.0)
"""Points from a mark at which its name is tried."""

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""In which its name is tried: right, left, above, below, and between them."""


def spread(places: Sequence[float], room: float, *, size: float = DOT) -> tuple[list[float], float]:
    """Move dots that would hide one another apart, across the axis on which they stand.

    Each dot keeps its place along the axis. In the order of their places, a dot stays on the
    middle if it touches none before it, and else goes to the nearest free place beside it, first
    above and then below: a beeswarm without chance. Where that takes more room than there is, all
    move closer and become smaller.

    Args:
        places: of the dots along the axis, in points.
        room: how far a dot may move to either side, in points.
        size: diameter of a dot, in points.

    Returns:
        How far each dot is moved across the axis, in points, in the order of `places`; and the
        diameter that is left.

    Example:
        >>> spread([10.0, 10.0, 10.0, 40.0], room=12)
        ([0.0, 5.5, -5.5, 0.0], 5.5)
    """
    moved: dict[int, float] = {}
    for i in sorted(range(len(places)), key=lambda i: (places[i], i)):
        near = [(places[j] - places[i], moved[j]) for j in moved if places[i] - places[j] < size]
        steps = (size * sign * n / 2 for n in range(4 * len(places)) for sign in (1, -1))
        moved[i] = next(
            step for step in steps if all(math.hypot(x, y - step) >= size - 1e-9 for x, y in near)
        )
    reach = max(map(abs, moved.values()), default=0.0)
    share = min(1.0, room / reach) if reach else 1.0
    # closer dots are smaller, down to half, and then cover one another in part
    return [moved[i] * share for i in range(len(places))], size * max(min(1.0, 1.3 * share), 0.5)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line of text is in the pictures' font, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def wrapped(text: str, room: float, size: float, bold: bool = False) -> str:
    """A text in lines that fit, broken behind blanks, commas and underscores, or anywhere at last.

    Args:
        text: one line.
        room: for a line, in points.
        size: of the font, in points.
        bold: its weight.

    Example:
        >>> wrapped("structured_per_head", room=70, size=9)
        'structured_\\nper_head'
    """
    lines = [""]
    for piece in _pieces(text):
        for part in [piece] if text_width(piece.rstrip(), size, bold) <= room else piece:
            if lines[-1] and text_width((lines[-1] + part).rstrip(), size, bold) > room:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _pieces(text: str) -> list[str]:
    """What a text is broken into, each with the sign behind it."""
    pieces = [""]
    for letter in text:
        pieces[-1] += letter
        if letter in " _,/-":
            pieces.append("")
    return [piece for piece in pieces if piece]


@dataclass(frozen=True)
class Mark:
    """A point of a picture and its name.

    Args:
        x: in the units of the axis.
        y: likewise.
        name: beside it.
        color: of the name.
        low: lower end of a bar through it; None without one.
        high: upper end.
    """

    x: float
    y: float
    name: str
    color: str
    low: float | None = None
    high: float | None = None


def direct_labels(
    axes: Axes, marks: Sequence[Mark], *, size: float = 8.0, clear_of: Sequence[float] = ()
) -> None:
    """Write names beside points so that no name covers another, a point or a bar.

    Points that touch are named together, line by line. A name goes as near to its point as there
    is room; one that stands farther than `NEAR` has a thin line to it. Draw all else first.

    Args:
        axes: with its final limits.
        marks: what is named.
        size: of the font, in points.
        clear_of: heights of lines across, over which no name is to stand.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    settle(figure)
    scale = figure.dpi / 72
    frame = axes.get_window_extent()
    frame = Bbox.from_extents(frame.x0 + scale, frame.y0, frame.x1 - scale, frame.y1)
    to_pixels = axes.transData.transform
    centres = [(float(x), float(y)) for x, y in to_pixels([(m.x, m.y) for m in marks])]
    taken = [_square(x, y, DOT * scale * 0.7) for x, y in centres]
    for mark in marks:
        if mark.low is not None and mark.high is not None:
            (x, low), (_, high) = axes.transData.transform(
                [(mark.x, mark.low), (mark.x, mark.high)]
            )
            taken.append(Bbox.from_extents(x - 3 * scale, low, x + 3 * scale, high))
    for height in clear_of:
        y = float(to_pixels((0.0, height))[1])
        taken.append(Bbox.from_extents(frame.x0, y - scale, frame.x1, y + scale))
    lines: list[tuple[Point, Point]] = []
    for cluster in _clusters(centres, DOT * scale * 1.3):
        names = [marks[i] for i in cluster]
        xs, ys = zip(*(centres[i] for i in cluster))
        around = Bbox.from_extents(min(xs), min(ys), max(xs), max(ys))
        text = [wrapped(mark.name, frame.width / scale * 0.6, size, bold=True) for mark in names]
        heights = [1.25 * size * scale * (1 + name.count("\n")) for name in text]
        width = scale * max(
            text_width(line, size, bold=True) for name in text for line in name.split("\n")
        )
        block = _best(around, (width + scale, sum(heights)), frame, taken, lines, scale)
        taken.append(block)
        if (end := _end_of_line(around, block, scale)) is not None:
            lines.append(end)
            (start, stop) = (axes.transData.inverted().transform(point) for point in end)
            axes.plot(
                *zip(start, stop), color=MUTED, linewidth=0.6, alpha=0.8, zorder=1,
                scalex=False, scaley=False, label="_line to a name",
            )  # fmt: skip
        _write(axes, names, text, heights, block, scale, size)


def _write(
    axes: Axes,
    names: Sequence[Mark],
    text: Sequence[str],
    heights: Sequence[float],
    block: Bbox,
    scale: float,
    size: float,
) -> None:
    top = block.y1
    for mark, name, height in zip(names, text, heights):
        x, y = axes.transData.transform((mark.x, mark.y))
        at = ((block.x0 - x) / scale, (top - height / 2 - y) / scale)
        label = axes.annotate(
            name, (mark.x, mark.y), xytext=at, textcoords="offset points", ha="left",
            va="center", color=mark.color, weight="bold", fontsize=size, zorder=5,
        )  # fmt: skip
        label.set_in_layout(False)
        top -= height


def _square(x: float, y: float, reach: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _clusters(centres: Sequence[Point], reach: float) -> list[list[int]]:
    """Points that touch, directly or through others, in the order of their first."""
    clusters: list[list[int]] = []
    for i, (x, y) in enumerate(centres):
        touching = [
            one
            for one in clusters
            if any(math.hypot(x - centres[j][0], y - centres[j][1]) <= reach for j in one)
        ]
        clusters = [one for one in clusters if one not in touching]
        clusters.append(sorted([i, *(j for one in touching for j in one)]))
    return sorted(clusters)


def _best(
    around: Bbox,
    size: tuple[float, float],
    frame: Bbox,
    taken: Sequence[Bbox],
    lines: Sequence[tuple[Point, Point]],
    scale: float,
) -> Bbox:
    """The nearest place for a block of this size; the one that covers least where none is free."""
    found: list[tuple[float, Bbox]] = []
    for distance in DISTANCES:
        for direction in DIRECTIONS:
            block = _placed(around, size, direction, distance * scale, frame)
            covered = sum(_common(block, other) for other in taken)
            end = _end_of_line(around, block, scale)
            crossed = [other for other in taken if end and _crosses(end, other, frame)]
            crossed += [block for line in lines if _crosses(line, block, frame)]
            if not covered and not crossed:
                return block
            found.append((covered + 50 * len(crossed), block))
    return min(found, key=lambda one: one[0])[1]


def _placed(
    around: Bbox, size: tuple[float, float], direction: tuple[int, int], gap: float, frame: Bbox
) -> Bbox:
    """A block on one side of a box, moved into the frame."""
    from matplotlib.transforms import Bbox

    (width, height), (right, up) = size, direction
    middle = (around.x0 + around.x1) / 2, (around.y0 + around.y1) / 2
    x = {1: around.x1 + gap, 0: middle[0] - width / 2, -1: around.x0 - gap - width}[right]
    y = {1: around.y1 + gap, 0: middle[1] - height / 2, -1: around.y0 - gap - height}[up]
    x = max(frame.x0, min(x, frame.x1 - width))
    y = max(frame.y0, min(y, frame.y1 - height))
    return Bbox.from_bounds(x, y, width, height)


def _common(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width * height if width > 0 and height > 0 else 0.0


def _end_of_line(around: Bbox, block: Bbox, scale: float) -> tuple[Point, Point] | None:
    """From the points to the nearest edge of their names; None where they stand near."""
    start = _nearest(around, ((block.x0 + block.x1) / 2, (block.y0 + block.y1) / 2))
    stop = _nearest(block, start)
    return None if math.dist(start, stop) <= NEAR * scale else (start, stop)


def _nearest(box: Bbox, point: Point) -> Point:
    """The place in a box that is nearest to a point."""
    return max(box.x0, min(point[0], box.x1)), max(box.y0, min(point[1], box.y1))


def _crosses(line: tuple[Point, Point], box: Bbox, frame: Bbox) -> bool:
    """Whether a line runs through a box, other than the one that it begins in.

    It may cross a line that runs from edge to edge of the frame.
    """
    from matplotlib.path import Path

    if _nearest(box, line[0]) == line[0] or box.width >= frame.width:
        return False
    return bool(Path([line[0], line[1]]).intersects_bbox(box, filled=True))
