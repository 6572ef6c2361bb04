"""A layer map as its non-zero weights: what each student layer reads, layer by layer.

Shapes: L_t teacher layers, L_s student layers (T and S in suffixes).
"""

from __future__ import annotations

from torch import Tensor

Row = tuple[tuple[int, float], ...]
"""The (teacher layer, weight) pairs of one student layer, non-zero weights only."""

Rows = tuple[Row, ...]
"""One row per student layer."""

ONE_LAYER: Rows = (((0, 1.0),),)


def sparse_rows(weights_ST: Tensor) -> Rows:
    """The non-zero entries of a layer map [L_s, L_t].

    Example:
        >>> import torch
        >>> sparse_rows(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        (((0, 1.0),), ((0, 0.5), (1, 0.5)))
    """
    return tuple(
        tuple((layer, weight) for layer, weight in enumerate(row) if weight)
        for row in weights_ST.tolist()
    )


def identity_rows(num_layers: int) -> Rows:
    """The map between equal depths in which each layer reads the layer of the same number."""
    return tuple(((layer, 1.0),) for layer in range(num_layers))


def is_identity(rows: Rows, num_teacher_layers: int) -> bool:
    """Whether each student layer reads the teacher layer of the same number, and no other."""
    return rows == identity_rows(num_teacher_layers)
