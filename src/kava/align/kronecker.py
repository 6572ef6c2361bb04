"""A map of heads and head dims as a sum of Kronecker terms: a head mix times a dim map each.

Shapes: L layers, r terms, H_in/H_out heads, D_in/D_out head dims, C = H·D coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sum_terms(head_mix: Tensor, dim_map: Tensor) -> Tensor:
    """The matrices [L, C_out, C_in] of sums of terms, coordinates in the order of heads.

    Args:
        head_mix: [L, r, H_out, H_in].
        dim_map: [L, r, D_out, D_in], or [L, r, H_out, D_out, D_in] for a dim map per head.

    Example:
        >>> sum_terms(torch.ones(1, 1, 2, 3), torch.eye(4)[None, None]).shape
        torch.Size([1, 8, 12])
    """
    heads = "h" if dim_map.ndim == 5 else ""
    maps = torch.einsum(f"lrhg,lr{heads}pd->lhpgd", head_mix, dim_map)
    return maps.flatten(3, 4).flatten(1, 2)
