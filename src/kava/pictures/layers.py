"""The picture of a measured layer map: keys, values, and where the map reads.

Shapes: L_s/L_t layers of student and teacher.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from kava.fit.layer_map import LayerMapping
from kava.pictures.panels import Look, add_key, cells, color_bar
from kava.pictures.theme import INK, NARROW, PAPER, WIDE, new_figure
from kava.pictures.ticks import count_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED_COLUMNS = 8
READ = Look("what the map reads; the larger, the more of it", INK, marker="o", width=0)


def similarity_picture(mapping: LayerMapping, narrow: bool = False) -> Figure:
    """CKA of keys, of values and their mean; dots show the map's weights on the mean.

    Args:
        mapping: rows are the student's layers, columns the teacher's.
        narrow: for small screens.

    Example:
        >>> Path("map.png").write_bytes(to_png(similarity_picture(mapping)))
    """
    similarity = mapping.similarity
    num_rows, num_columns = similarity.keys.shape
    height = min(max(1.1 + 0.3 * num_rows, 2.2), 6.0)
    shape = (3, 1) if narrow else (1, 3)
    figure = new_figure(NARROW if narrow else WIDE, height * shape[0])
    panels = figure.subplots(*shape, sharex=True, sharey=True).tolist()
    highest = max(float(part.max()) for part in (similarity.keys, similarity.values))
    top = max(math.ceil(highest * 10) / 10, 0.1)
    parts = {
        "Keys": similarity.keys, "Values": similarity.values, "Mean, and the map": similarity.mean
    }  # fmt: skip
    for axes, (title, cka_ST) in zip(panels, parts.items()):
        cells(axes, (cka_ST / top).tolist())
        axes.set_title(title, loc="left", pad=6)
        axes.tick_params(labelbottom=True, labelleft=True)
        count_ticks(axes.xaxis, num_columns, 12 if narrow else 8)
        count_ticks(axes.yaxis, num_rows, 12)
        if axes is panels[0] or narrow:
            axes.set_ylabel("student's layer")
        axes.set_xlabel("teacher's layer")
        if num_columns <= MAX_NUMBERED_COLUMNS and cka_ST is not similarity.mean:
            _number(axes, cka_ST, top)
    _dots(panels[2], mapping.weights)
    color_bar(figure, panels, "CKA, debiased", top=top)
    add_key(figure, [READ])
    return figure


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
    axes.scatter(
        columns, rows, s=areas, color=INK, edgecolors=PAPER, linewidths=0.8, label=READ.name
    )
