"""A picture as a page, a Markdown file and other programs need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.pictures.theme import drawing, on_paper, svg_element, to_png, to_svg, to_svg_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[bool], "Figure"]
"""Draws a picture, in its narrow form when asked."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page.

    Attributes:
        name: its file, without the ending.
        title: above it.
        caption: below it.
        wide: as an SVG element whose colours are the page's.
        narrow: the same, for small screens.
        png: a file on white paper.
        svg: likewise.
    """

    name: str
    title: str
    caption: str
    wide: str
    narrow: str
    png: bytes
    svg: str


def draw_picture(name: str, title: str, caption: str, draw: Draw) -> Picture:
    """Draw a picture in all its forms.

    Example:
        >>> draw_picture("layers", "Layers", "", lambda narrow: layer_map_picture(weights, narrow))
    """
    with drawing():
        wide, narrow = draw(False), draw(True)
        for figure in (wide, narrow):  # laid out once, not at every saving
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        svg = to_svg_file(wide, f"{name}-wide")
        return Picture(
            name=name,
            title=title,
            caption=caption,
            wide=svg_element(svg),
            narrow=to_svg(narrow, f"{name}-narrow"),
            png=to_png(wide),
            svg=on_paper(svg),
        )
