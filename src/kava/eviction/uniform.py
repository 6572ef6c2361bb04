"""Uniform: keep candidates at even distances, the first and the last among them.

Shapes: B batch, T positions, M kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.eviction.base import Candidates, Eviction, ascending_indices, register_eviction
from kava.trace import KVTrace


@register_eviction("uniform")
@dataclass(frozen=True, kw_only=True)
class UniformEviction(Eviction):
    """Keep `target_len` evenly spread candidates: the baseline that reads no content.

    Slot j of M takes the candidate of rank round(j (C − 1) / (M − 1)) of C, halves rounded up, so
    that both ends are kept. With M = 1 it is the last candidate.

    Example:
        >>> kept, indices_BLHM = compress(trace, "uniform", target_len=8)
    """

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The candidates of evenly spread ranks."""
        last_B1 = candidates.counts[:, None] - 1
        # A sample with fewer candidates than slots keeps each of them: its step would be below 1.
        steps_B1 = candidates.counts[:, None].clamp(max=target_len) - 1
        slots_BM = torch.arange(target_len, device=last_B1.device).minimum(steps_B1)
        # Integer arithmetic: no device may round a half differently.
        ranks_BM = (2 * slots_BM * last_B1 + steps_B1) // (2 * steps_B1).clamp(min=1)
        ranks_BM = torch.where(steps_B1 > 0, ranks_BM, last_B1)
        order_BC = ascending_indices(candidates.mask, int(candidates.counts.max()))
        kept_BT = torch.zeros_like(candidates.mask)
        return kept_BT.scatter_(1, order_BC.gather(1, ranks_BM), True)[:, None, None]
