"""The plain reference of `contraction`: the same functions in a few lines of einsum and autograd.

A test compares the values and gradients of both; KAVA_PLAIN=1 makes the aligner use this one.

Shapes: B batch, L layers (l), H_t/H_s heads (g, h), T positions (t), D_t/D_s head dims (d, p) of
teacher and student; r terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.align.layers.sparse_map import ONE_LAYER, Rows, is_identity


def mix_layers(x_BLHTD: Tensor, rows: Rows) -> Tensor:
    """See `kava.align.linear_maps.mix_layers`."""
    if is_identity(rows, x_BLHTD.shape[1]):
        return x_BLHTD
    # A sum over the non-zero weights: 0 times a layer that holds NaN would be NaN.
    mixed = []
    for row in rows:
        layers, weights = zip(*row)
        chosen = x_BLHTD[:, list(layers)]
        mixed.append(torch.einsum("blhtd,l->bhtd", chosen, chosen.new_tensor(weights)))
    return torch.stack(mixed, dim=1)


def apply_terms(
    x_BLHTD: Tensor,
    head_weight: Tensor,
    dim_weight: Tensor,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """See `kava.align.linear_maps.apply_terms`."""
    if head_weight.ndim == 2:
        head_weight, dim_weight = head_weight[None, None], dim_weight[None, None]
    heads = "h" if dim_weight.ndim == 5 else ""
    factors = [part.to(x_BLHTD.dtype) for part in (head_weight, dim_weight)]
    with torch.autocast(x_BLHTD.device.type, enabled=False):
        mixed = mix_layers(x_BLHTD, rows)
        y = torch.einsum(f"blgtd,lrhg,lr{heads}pd->blhtp", mixed, *factors)
    return _shift(y, bias)


def apply_matrix(
    x_BLHTD: Tensor,
    weight: Tensor,
    num_heads: int,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """See `kava.align.linear_maps.apply_matrix`."""
    blocks = weight.unflatten(2, (x_BLHTD.shape[2], -1)).unflatten(1, (num_heads, -1))
    with torch.autocast(x_BLHTD.device.type, enabled=False):
        mixed = mix_layers(x_BLHTD, rows)
        y = torch.einsum("blgtd,lhpgd->blhtp", mixed, blocks.to(x_BLHTD.dtype))
    return _shift(y, bias)


def _shift(y_BLHTD: Tensor, bias_LHD: Tensor | None) -> Tensor:
    """Add the bias; contiguous, as the fast result is."""
    shifted = y_BLHTD if bias_LHD is None else y_BLHTD + bias_LHD.to(y_BLHTD.dtype)[:, :, None]
    return shifted.contiguous()
