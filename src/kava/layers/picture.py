"""The picture of a measured layer map: keys, values, and where the map reads.

Shapes: L_s/L_t layers of student and teacher.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from kava.layers.mapping import LayerMapping
from kava.theme import FAINT, INK, KV, PAPER, WIDE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_NUMBERED_COLUMNS = 8


def similarity_picture(mapping: LayerMapping) -> Figure:
    """CKA of keys, of values and their mean; dots show the map's weights on the mean.

    Args:
        mapping: rows are the student's layers, columns the teacher's.

    Example:
        >>> Path("map.png").write_bytes(to_png(similarity_picture(mapping)))
    """
    similarity = mapping.similarity
    num_rows, num_columns = similarity.keys.shape
    height = min(max(1.1 + 0.3 * num_rows, 2.2), 6.0)
    figure = new_figure(WIDE, height)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    highest = max(float(part.max()) for part in (similarity.keys, similarity.values))
    top = max(math.ceil(highest * 10) / 10, 0.1)
    parts = {"Keys": similarity.keys, "Values": similarity.values}
    for axes, (title, cka_ST) in zip(panels, parts.items()):
        image = _heat(axes, cka_ST, top)
        axes.set_title(title, loc="left", pad=6)
        if num_columns <= MAX_NUMBERED_COLUMNS:
            _number(axes, cka_ST, top)
    _heat(panels[2], similarity.mean, top)
    panels[2].set_title("Mean, and the map", loc="left", pad=6)
    _dots(panels[2], mapping.weights)
    panels[0].set_ylabel("student's layer")
    for axes in panels:
        axes.set_xlabel("teacher's layer")
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02, aspect=18)
    bar.set_label("CKA, debiased")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _heat(axes: Axes, cka_ST: Tensor, top: float) -> AxesImage:
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("kava", [PAPER, KV])
    image = axes.imshow(cka_ST.tolist(), cmap=colors, vmin=0, vmax=top, aspect="auto")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)
    num_rows, num_columns = cka_ST.shape
    for axis, count in ((axes.xaxis, num_columns), (axes.yaxis, num_rows)):
        axis.set_ticks(range(0, count, -(-count // 12)))
    axes.tick_params(length=0)
    return image


def _number(axes: Axes, cka_ST: Tensor, top: float) -> None:
    for row, values in enumerate(cka_ST.tolist()):
        for column, value in enumerate(values):
            color = PAPER if value > 0.6 * top else INK
            text = f"{value:.2f}".replace("0.", ".", 1)
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)


def _dots(axes: Axes, weights_ST: Tensor) -> None:
    """A dot where the map reads, its area the weight."""
    read = weights_ST.nonzero().tolist()
    rows, columns = [row for row, _ in read], [column for _, column in read]
    largest = 64 if max(weights_ST.shape) <= 12 else 24
    areas = [largest * float(weights_ST[row, column]) for row, column in read]
    axes.scatter(columns, rows, s=areas, color=INK, edgecolors=PAPER, linewidths=0.8)
