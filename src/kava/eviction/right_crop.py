"""Right crop: keep the last candidates.

Shapes: B batch, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kava.eviction.base import Candidates, Eviction, register_eviction
from kava.trace import KVTrace


@register_eviction("right_crop")
@dataclass(frozen=True, kw_only=True)
class RightCropEviction(Eviction):
    """Keep the last `target_len` candidates: the baseline that only trusts recency.

    Example:
        >>> kept, indices_BLHM = compress(trace, "right_crop", target_len=8)
    """

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The candidates that fewer than `target_len` others follow."""
        ranks_BT = candidates.mask.cumsum(dim=1)
        first_B1 = candidates.counts[:, None] - target_len
        return (candidates.mask & (ranks_BT > first_B1))[:, None, None]
