"""The linear maps of alignment: a weighted sum of layers, then a map of heads and head dims.

There are two implementations with the same signatures: `kava.align.fast.contraction`, the fast
one, and `kava.align.fast.plain`, a few lines of `torch.einsum` to read and to check against.
KAVA_PLAIN=1 in the environment, read at every call, chooses the plain one.

Shapes: B batch, L_t/L_s layers, H_t/H_s heads, T positions, D_t/D_s head dims, of teacher and
student; r terms.
"""

from __future__ import annotations

import os
from types import ModuleType

from torch import Tensor

from kava.align.fast import contraction, plain
from kava.align.layers.sparse_map import ONE_LAYER, Rows

PLAIN_VARIABLE = "KAVA_PLAIN"
"""The environment variable that chooses the plain implementation."""


def _implementation() -> ModuleType:
    value = os.environ.get(PLAIN_VARIABLE, "0")
    if value not in ("", "0", "1"):
        raise ValueError(
            f"{PLAIN_VARIABLE}={value!r} is unknown; set it to 1 for the plain implementation of "
            f"the aligner's maps, or to 0 for the fast one"
        )
    return plain if value == "1" else contraction


def mix_layers(x_BLHTD: Tensor, rows: Rows) -> Tensor:
    """Sum teacher layers by the weights of `rows`: [B, L_t, H, T, D] -> [B, L_s, H, T, D].

    The identity returns its input. A layer without weight is not read and may hold NaN.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1)
        >>> mix_layers(x, rows=(((0, 0.5), (1, 0.5)),)).flatten()
        tensor([2.])
    """
    mixed: Tensor = _implementation().mix_layers(x_BLHTD, rows)
    return mixed


def apply_terms(
    x_BLHTD: Tensor,
    head_weight: Tensor,
    dim_weight: Tensor,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """Mix layers, then apply a sum of terms, each a head mix times a dim map.

    Args:
        x_BLHTD: [B, L_t, H_t, T, D_t].
        head_weight: [H_s, H_t], or a sum of r terms for each layer, [L_s, r, H_s, H_t].
        dim_weight: [D_s, D_t], or [H_s, D_s, D_t] for one map per student head; [L_s, r, …] of
            either for terms.
        rows: the layer map's non-zero weights.
        bias: [L_s, H_s, D_s] or None.

    Returns:
        [B, L_s, H_s, T, D_s] in the dtype of `x_BLHTD`; the weights are cast to it.
    """
    y: Tensor = _implementation().apply_terms(x_BLHTD, head_weight, dim_weight, rows, bias)
    return y


def apply_matrix(
    x_BLHTD: Tensor,
    weight: Tensor,
    num_heads: int,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """Mix layers, then apply one matrix over all coordinates of a position.

    Args:
        x_BLHTD: [B, L_t, H_t, T, D_t].
        weight: [L_s, H_s·D_s, H_t·D_t].
        num_heads: H_s.
        rows: the layer map's non-zero weights.
        bias: [L_s, H_s, D_s] or None.

    Returns:
        [B, L_s, H_s, T, D_s] in the dtype of `x_BLHTD`; the weights are cast to it.
    """
    y: Tensor = _implementation().apply_matrix(x_BLHTD, weight, num_heads, rows, bias)
    return y
