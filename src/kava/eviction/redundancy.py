"""The mean cosine of every key with all others, in time and memory linear in the length.

Shapes: N heads (layers, samples and key/value heads), T positions, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

# As in the R-KV reference, which adds it to the norm; a zero key has the cosine 0 with all.
SMALLEST_NORM = 1e-8


def mean_cosine(keys: Tensor, mask: Tensor) -> Tensor:
    """The mean over the candidates of the cosine with each key, its own counted as zero.

    The T×T matrix of cosines is never made: with r = 1/‖k‖ and S = Σ_j r_j k_j, the row sum
    Σ_j cos(k_i, k_j) is r_i (k_i · S), and the diagonal's share is (r_i ‖k_i‖)².

    Args:
        keys: [N, T, D] float32, zero where `mask` is False.
        mask: [N, T] bool, the candidates; at least one in each row.

    Returns:
        [N, T]; zero where `mask` is False.

    Example:
        >>> mean_cosine(torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
        tensor([[0.6667, 0.6667, 0.6667]])
    """
    norms_NT = torch.linalg.vector_norm(keys, dim=-1)
    inverse_NT = norms_NT.clamp(min=SMALLEST_NORM).reciprocal() * mask
    # Row vector times matrix: the other order is ten times slower on a CPU.
    sum_N1D = torch.bmm(inverse_NT[:, None], keys)
    row_sums_NT = inverse_NT * torch.bmm(sum_N1D, keys.transpose(1, 2))[:, 0]
    diagonal_NT = (inverse_NT * norms_NT).square()
    return (row_sums_NT - diagonal_NT) / mask.sum(dim=-1, keepdim=True)


def softmax_over(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the positions of `mask`, and zero elsewhere.

    It overwrites `scores`. A row without any position comes out even, not NaN.
    """
    return scores.masked_fill_(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
