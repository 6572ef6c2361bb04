"""Full: keep every candidate.

Shapes: B batch, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kava.eviction.base import Candidates, Eviction, register_eviction
from kava.trace import KVTrace


@register_eviction("full")
@dataclass(frozen=True, kw_only=True)
class FullEviction(Eviction):
    """Keep every candidate: the uncompressed upper bound.

    The result is as long as the sample with the most candidates, whatever `target_len` says.

    Example:
        >>> kept, indices_BLHM = compress(trace, "full")
    """

    def num_slots(self, candidates: Candidates, target_len: int) -> int:
        """The largest number of candidates in the batch."""
        return int(candidates.counts.max())

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """All candidates."""
        return candidates.mask[:, None, None]
