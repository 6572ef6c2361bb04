"""Window: keep consecutive candidates.

Shapes: B batch, T positions, M kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kava.eviction.base import Candidates, Eviction, register_eviction
from kava.trace import KVTrace


@register_eviction("window")
@dataclass(frozen=True, kw_only=True)
class WindowEviction(Eviction):
    """Keep `target_len` consecutive candidates.

    Window attention (Beltagy et al., "Longformer", arXiv 2004.05150; the baseline of Xiao et al.,
    arXiv 2309.17453, figure 1b) holds the newest positions: `place` 1, which is `right_crop`.
    Deviation: the window may be elsewhere, since a student that continues from it need not
    read the end of the reasoning; place 0 keeps the beginning.

    Args:
        place: the place of the window, from 0 (at the first candidate) to 1 (at the last).

    Raises:
        ValueError: a place outside 0 to 1.

    Example:
        >>> kept, indices_BLHM = compress(trace, "window", target_len=8, place=0.0)
    """

    place: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.place <= 1:
            raise ValueError(f"place={self.place} must lie between 0 (first) and 1 (last)")

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The candidates of `target_len` consecutive ranks."""
        ranks_BT = candidates.mask.cumsum(dim=1) - 1
        room_B1 = (candidates.counts[:, None] - target_len).clamp(min=0)
        first_B1 = (room_B1.float() * self.place).round()
        inside_BT = (ranks_BT >= first_B1) & (ranks_BT < first_B1 + target_len)
        return (candidates.mask & inside_BT)[:, None, None]
