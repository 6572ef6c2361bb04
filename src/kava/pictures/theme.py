"""How pictures look: one palette and style, PNG files, and SVG that follows a page.

The colours are told apart by the usual kinds of colour blindness and in grey. In an SVG they
become the variables of the page it stands in, so that a dark page has light ink.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1d2733"
MUTED = "#5d6874"
FAINT = "#d3d9df"
KV = "#0a66b0"
WITHOUT = "#b04c12"
REFERENCE = "#4a5663"
PAPER = "#ffffff"

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--faint",
    KV: "--kv",
    WITHOUT: "--without",
    REFERENCE: "--reference",
    PAPER: "--paper",
}
"""Colour in a picture → variable of the page."""

WIDE, NARROW = 7.4, 3.7
"""Inches, of a picture on a page and on a small screen."""

DPI = 150
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "svg.fonttype": "none",
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all pictures inside the block; no display is needed."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, apart from pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def settle(figure: Figure) -> None:
    """Lay a picture out once and for all, so that what is added to it keeps its place."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def to_png(figure: Figure) -> bytes:
    """The picture on white paper."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """The picture as an SVG element for a page, its colours the page's variables.

    Args:
        figure: what was drawn.
        name: makes the identifiers inside differ from those of the page's other pictures.
    """
    return svg_element(to_svg_file(figure, name))


def to_svg_file(figure: Figure, name: str) -> str:
    """The picture as an SVG file of its own, the same bytes every time.

    Args:
        figure: what was drawn.
        name: as in `to_svg`.
    """
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def svg_element(svg: str) -> str:
    """An SVG file as an element for a page, its colours the page's variables."""
    svg = svg[svg.index("<svg") :]
    head, _, rest = svg.partition("<metadata>")
    svg = head + rest.partition("</metadata>")[2] if rest else svg
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", svg)  # names of parts, the same in all pictures
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg.strip()


def on_paper(svg: str) -> str:
    """An SVG file with white paper behind the picture."""
    return re.sub(
        r"(<svg\b[^<>]*>)", rf'\1<rect width="100%" height="100%" fill="{PAPER}"/>', svg, count=1
    )
