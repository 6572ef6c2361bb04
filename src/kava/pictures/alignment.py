"""Pictures of an alignment: the layers, heads and tokens that a student's are compared with.

Each is a function from plain numbers to a figure, in a wide form and a narrow one for small
screens. The bluer a cell or a line, the larger its weight.

Shapes: L_s/L_t layers, H_out/H_in heads of the space that is written and of the one that is read,
T_s/T_t tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from kava.pictures.panels import Look, add_key, cells, color_bar
from kava.pictures.theme import INK, KV, MUTED, NARROW, WIDE, new_figure
from kava.pictures.ticks import count_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Matrix = Sequence[Sequence[float]]
"""Rows of numbers, such as `tensor.tolist()`."""

MAX_NUMBERED_CELLS = 80
MAX_TOKENS = 48
MAX_TOKEN_LENGTH = 20
"""Characters of a token that are shown; a longer one is cut in its middle."""

CHARACTERS_PER_INCH = 14.5
"""Of the tokens' font; DejaVu Sans Mono is 0.602 em wide, 8 points of which make 0.067 inches."""

GAP, LEAST_GAP = 1.2, 0.4
"""Between tokens, in characters, and between those that would not fit on a line."""

SIDES = ("student", "teacher")
"""Whose tokens are the upper ones, and whose the lower."""

PART = "a line: this part of the target, from the teacher's token"


def layer_map_picture(weights_SL: Matrix, narrow: bool = False) -> Figure:
    """Each student layer as a row, and what it takes of the teacher's layers.

    Args:
        weights_SL: [L_s, L_t], rows sum to 1.
        narrow: for small screens.
    """
    num_rows, num_columns = len(weights_SL), len(weights_SL[0])
    figure = new_figure(NARROW if narrow else WIDE, min(max(0.75 + 0.32 * num_rows, 1.5), 6.0))
    axes = figure.add_subplot()
    few = num_rows * num_columns <= MAX_NUMBERED_CELLS and num_columns <= (8 if narrow else 16)
    cells(axes, weights_SL, numbered=few)
    _name_axes(axes, weights_SL, ("student's layer", "teacher's layer"), 8 if narrow else 16)
    color_bar(figure, [axes], "weight")
    return figure


def head_map_picture(
    norms: Mapping[str, Sequence[Matrix]],
    sides: tuple[str, str] = SIDES,
    narrow: bool = False,
) -> Figure:
    """One panel for each part and layer: rows are the heads that are written, columns those read.

    Args:
        norms: "keys" and "values" → [L, H_out, H_in] as `head_norms` gives them.
        sides: whose heads are written, and whose are read.
        narrow: for small screens.
    """
    num_layers = min(len(layers) for layers in norms.values())
    shown = _some(num_layers, 2 if narrow else 4)
    first = next(iter(norms.values()))[0]
    height = len(norms) * min(max(0.6 + 0.26 * len(first), 1.2), 3.0) + 0.4
    figure = new_figure(NARROW if narrow else WIDE, height)
    grid = figure.subplots(len(norms), len(shown), squeeze=False, sharex=True, sharey=True)
    for panels, (part, layers) in zip(grid, norms.items()):
        for axes, layer in zip(panels, shown):
            largest = max(max(row) for row in layers[layer]) or 1.0
            cells(axes, [[value / largest for value in row] for row in layers[layer]])
            axes.set_title(part if num_layers == 1 else f"{part}, layer {layer}", loc="left", pad=4)
            axes.tick_params(labelbottom=True, labelleft=True)
            _name_axes(axes, layers[layer], ("", ""), (5 if narrow else 20) // len(shown) + 2)
        panels[0].set_ylabel(f"{sides[0]}'s head")
    for axes in grid[-1]:
        axes.set_xlabel(f"{sides[1]}'s head")
    color_bar(figure, grid.flatten().tolist(), "norm of the block ÷ the panel's largest")
    return figure


def time_map_picture(
    student_tokens: Sequence[str],
    teacher_tokens: Sequence[str],
    weights_ST: Matrix,
    bold: Collection[int] = (),
    narrow: bool = False,
) -> Figure:
    """The teacher's tokens under the student's: a line where one is part of the other's target.

    Args:
        student_tokens: as text; of a longer text the first `MAX_TOKENS` are shown.
        teacher_tokens: as text.
        weights_ST: [T_s, T_t], rows sum to 1.
        bold: places of the student's tokens to set off, such as its reasoning.
        narrow: for small screens.

    Example:
        >>> figure = time_map_picture(["bdca"], [" bd", "ca"], [[0.5, 0.5]])
    """
    width = NARROW if narrow else WIDE
    gutter = max(map(len, SIDES)) + 1.5
    room = (width - 0.15) * CHARACTERS_PER_INCH - gutter
    cut = len(student_tokens) > MAX_TOKENS
    groups = _groups(len(teacher_tokens), weights_ST[:MAX_TOKENS] if cut else weights_ST, cut)
    below = [_fitted([_shown(teacher_tokens[j]) for j in theirs], room) for theirs in groups]
    sizes = [
        max(_size(_shown(student_tokens[i]), GAP), sum(_size(word, gap) for word in words))
        for i, (words, gap) in enumerate(below)
    ]
    lines = _lines(sizes, room)
    figure = new_figure(width, 0.85 * len(lines) + 0.1)
    panels = figure.subplots(len(lines), 1, squeeze=False).flatten().tolist()
    for axes, line in zip(panels, lines):
        axes.set_axis_off()
        axes.set_xlim(-gutter, room)
        axes.set_ylim(-0.35, 1.35)
        for height, side in zip((1.0, 0.0), SIDES):
            axes.text(-gutter, height, side, ha="left", va="center", fontsize=7.5, color=MUTED)
        upper: dict[int, float] = {}
        lower: dict[int, float] = {}
        start = 0.0
        for i in line:
            words, gap = below[i]
            upper[i] = start + sizes[i] / 2
            _word(axes, _shown(student_tokens[i]), upper[i], 1.0, INK, i in bold)
            x = upper[i] - sum(_size(word, gap) for word in words) / 2
            for k, word in enumerate(words):
                middle = x + _size(word, gap) / 2
                _word(axes, word, middle, 0.0, MUTED, False)
                lower |= dict.fromkeys(
                    groups[i][k:] if word is REST else groups[i][k : k + 1], middle
                )
                x += _size(word, gap)
            start += sizes[i]
        for i, x in upper.items():
            for j, z in lower.items():
                if weights_ST[i][j] > 0.01:
                    look = Look(PART, KV, width=1.4, alpha=min(weights_ST[i][j], 1.0))
                    axes.plot([x, z], [0.78, 0.22], **look.drawn())
    parts = ((f"{PART}: 1", 1.0), ("0.5", 0.5), ("0.25", 0.25))
    add_key(figure, [Look(name, KV, width=1.4, alpha=part) for name, part in parts])
    return figure


def _name_axes(axes: Axes, rows: Matrix, names: tuple[str, str], most: int) -> None:
    """Numbers of layers or heads on both axes, at most `most` of them, and what they are of."""
    count_ticks(axes.yaxis, len(rows))
    count_ticks(axes.xaxis, len(rows[0]), most)
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])


def _some(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, first and last among them, evenly apart."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _groups(num_teacher_tokens: int, weights_ST: Matrix, cut: bool) -> list[list[int]]:
    """For each of the student's tokens the teacher's that belong to it most.

    A token that none is compared with stands beside the one before it, and at the end of a text
    that is cut is left out.
    """
    groups: list[list[int]] = [[] for _ in weights_ST]
    most = [max(row[j] for row in weights_ST) for j in range(num_teacher_tokens)]
    stop = max((j + 1 for j, weight in enumerate(most) if weight > 0), default=0)
    owner = 0
    for j in range(stop if cut else num_teacher_tokens):
        if most[j] > 0:
            owner = [row[j] for row in weights_ST].index(most[j])
        groups[owner].append(j)
    return groups


def _lines(sizes: Sequence[float], room: float) -> list[list[int]]:
    """The places of tokens of such sizes, broken into lines."""
    lines: list[list[int]] = []
    left = 0.0
    for place, size in enumerate(sizes):
        if not lines or size > left:
            lines.append([])
            left = room
        lines[-1].append(place)
        left -= size
    return lines


REST = "…"
"""In place of the tokens of a group that do not fit on a line."""


def _fitted(words: list[str], room: float) -> tuple[list[str], float]:
    """Tokens that stand together, and the gap behind each: closer, or cut, where they need it."""
    for gap in (GAP, LEAST_GAP):
        if sum(_size(word, gap) for word in words) <= room:
            return words, gap
    kept = 0
    while sum(_size(word, LEAST_GAP) for word in [*words[: kept + 1], REST]) <= room:
        kept += 1
    return [*words[:kept], REST], LEAST_GAP


def _size(word: str, gap: float) -> float:
    """The room that a shown token takes, in characters, with the gap to the next."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in word) + gap


def _shown(token: str) -> str:
    """Blanks and line breaks made visible; of a long token its two ends."""
    text = token.replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"
    half = MAX_TOKEN_LENGTH // 2
    return text if len(text) <= MAX_TOKEN_LENGTH else f"{text[:half]}…{text[-half + 1 :]}"


def _word(axes: Axes, word: str, x: float, height: float, color: str, bold: bool) -> None:
    axes.text(
        x, height, word, ha="center", va="center", fontsize=8, color=color,
        family="DejaVu Sans Mono", weight="bold" if bold else "normal",
    )  # fmt: skip
