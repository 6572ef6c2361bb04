"""Pictures of an alignment: which layers, heads and tokens of a teacher a student's are held to.

Each is a function from plain numbers to a figure, in a wide form and a narrow one for small
screens. The bluer a cell or a line, the larger its weight.

Shapes: L_s/L_t layers, H_out/H_in heads of the space that is written and of the one that is read,
T_s/T_t tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from kava.theme import FAINT, INK, KV, MUTED, NARROW, PAPER, WIDE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kava.align.projectors import Projector

Matrix = Sequence[Sequence[float]]
"""Rows of numbers, such as `tensor.tolist()`."""

MAX_NUMBERED_CELLS = 80
MAX_TOKENS = 48
CHARACTERS_PER_INCH = 14.5
"""Of the tokens' font; DejaVu Sans Mono is 0.602 em wide, 8 points of which make 0.067 inches."""


def head_norms(projector: Projector) -> list[list[list[float]]]:
    """How much of a map reads each head: the Frobenius norm of each block of its matrix.

    Args:
        projector: a map of heads and head dims, one for all layers or one for each.

    Returns:
        [L, H_out, H_in]; L is 1 where all layers share the map.

    Raises:
        ValueError: a map that is no matrix, such as a flat one of several layers.

    Example:
        >>> head_norms(LayerwiseProjector(2, 6, 4, 16, 16))[0][0]
        [2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    """
    import torch

    from kava.align import HeadwiseMapProjector, LayerwiseProjector

    if isinstance(projector, LayerwiseProjector):
        heads = (projector.num_heads_out, projector.num_heads_in)
        blocks = projector.dense().detach().unflatten(2, (heads[1], -1))
        return blocks.unflatten(1, (heads[0], -1)).norm(dim=(2, 4)).tolist()
    if isinstance(projector, HeadwiseMapProjector):
        mix = projector.head_mixer.weight.detach().abs()
        dims = torch.linalg.matrix_norm(projector.dim_weight.detach())
        return (mix * dims.reshape(-1, 1)).unsqueeze(0).tolist()
    raise ValueError(
        f"a {type(projector).__name__} is no single matrix of heads; draw a structured map, or one "
        f"that was calibrated"
    )


def layer_map_picture(weights_SL: Matrix, narrow: bool = False) -> Figure:
    """Each student layer as a row, and what it takes of the teacher's layers.

    Args:
        weights_SL: [L_s, L_t], rows sum to 1.
        narrow: for small screens.
    """
    num_rows, num_columns = len(weights_SL), len(weights_SL[0])
    figure = new_figure(NARROW if narrow else WIDE, min(0.75 + 0.32 * num_rows, 6.0))
    axes = figure.add_subplot()
    _cells(axes, weights_SL, numbered=num_rows * num_columns <= MAX_NUMBERED_CELLS)
    _name_axes(axes, "student's layer", "teacher's layer")
    return figure


def head_map_picture(
    norms: Mapping[str, Sequence[Matrix]],
    sides: tuple[str, str] = ("student", "teacher"),
    narrow: bool = False,
) -> Figure:
    """One panel for each part and layer: rows are the heads that are written, columns those read.

    Args:
        norms: "keys" and "values" → [L, H_out, H_in] as `head_norms` gives them.
        sides: whose heads are written, and whose are read.
        narrow: for small screens.
    """
    num_layers = min(len(layers) for layers in norms.values())
    shown = _spread(num_layers, 2 if narrow else 4)
    first = next(iter(norms.values()))[0]
    height = len(norms) * min(0.6 + 0.26 * len(first), 3.0) + 0.4
    figure = new_figure(NARROW if narrow else WIDE, height)
    grid = figure.subplots(len(norms), len(shown), squeeze=False, sharex=True, sharey=True)
    for panels, (part, layers) in zip(grid, norms.items()):
        for axes, layer in zip(panels, shown):
            largest = max(max(row) for row in layers[layer]) or 1.0
            shares = [[value / largest for value in row] for row in layers[layer]]
            _cells(axes, shares, numbered=False)
            axes.set_title(part if num_layers == 1 else f"{part}, layer {layer}", loc="left", pad=4)
            axes.set_xlabel("")
        panels[0].set_ylabel(f"{sides[0]}'s head")
    for axes in grid[-1]:
        axes.set_xlabel(f"{sides[1]}'s head")
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
    cut = len(student_tokens) > MAX_TOKENS
    groups = _groups(len(teacher_tokens), weights_ST[:MAX_TOKENS] if cut else weights_ST, cut)
    sizes = [
        max(_size(student_tokens[i]), sum(_size(teacher_tokens[j]) for j in theirs))
        for i, theirs in enumerate(groups)
    ]
    lines = _lines(sizes, width * CHARACTERS_PER_INCH)
    figure = new_figure(width, 0.85 * len(lines) + 0.1)
    panels = figure.subplots(len(lines), 1, squeeze=False).flatten().tolist()
    for axes, line in zip(panels, lines):
        axes.set_axis_off()
        axes.set_xlim(0, width * CHARACTERS_PER_INCH)
        axes.set_ylim(-0.35, 1.35)
        above, below, start = {}, {}, 0.0
        for i in line:
            above[i] = start + sizes[i] / 2
            _word(axes, student_tokens[i], above[i], 1.0, INK, i in bold)
            x = above[i] - sum(_size(teacher_tokens[j]) for j in groups[i]) / 2
            for j in groups[i]:
                below[j] = x + _size(teacher_tokens[j]) / 2
                _word(axes, teacher_tokens[j], below[j], 0.0, MUTED, False)
                x += _size(teacher_tokens[j])
            start += sizes[i]
        for i, x in above.items():
            for j, z in below.items():
                if weights_ST[i][j] > 0.01:
                    axes.plot(
                        [x, z], [0.78, 0.22], color=KV, alpha=min(weights_ST[i][j], 1.0),
                        linewidth=1.4,
                    )  # fmt: skip
    return figure


def _cells(axes: Axes, shares: Matrix, numbered: bool) -> None:
    """A cell for every number from 0 to 1, the larger the bluer."""
    from matplotlib.patches import Rectangle

    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            at = (x - 0.47, y - 0.45)
            axes.add_patch(Rectangle(at, 0.94, 0.9, facecolor=FAINT, alpha=0.45, lw=0))
            if share >= 0.005:
                axes.add_patch(Rectangle(at, 0.94, 0.9, facecolor=KV, alpha=min(share, 1), lw=0))
            if numbered and share >= 0.005:
                axes.text(
                    x, y, f"{share:.2f}".rstrip("0").rstrip("."), ha="center", va="center",
                    fontsize=7, color=PAPER if share > 0.6 else INK,
                )  # fmt: skip
    axes.set_xlim(-0.6, len(shares[0]) - 0.4)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for axis, count in ((axes.xaxis, len(shares[0])), (axes.yaxis, len(shares))):
        places = range(0, count, -(-count // 16))
        axis.set_ticks(places, [str(place) for place in places])
    axes.tick_params(length=0)


def _name_axes(axes: Axes, rows: str, columns: str) -> None:
    axes.set_ylabel(rows)
    axes.set_xlabel(columns)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `count` places, first and last among them, evenly apart."""
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


def _size(token: str) -> float:
    """The room that a token takes, in characters, with the gap to the next."""
    return len(_shown(token)) + 1.2


def _shown(token: str) -> str:
    """Blanks and line breaks made visible."""
    return token.replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"


def _word(axes: Axes, token: str, x: float, height: float, color: str, bold: bool) -> None:
    axes.text(
        x, height, _shown(token), ha="center", va="center", fontsize=8, color=color,
        family="DejaVu Sans Mono", weight="bold" if bold else "normal",
    )  # fmt: skip
