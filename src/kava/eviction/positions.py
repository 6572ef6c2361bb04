"""Positions: keep the positions that the caller gives.

Shapes: B batch, L layers, H key/value heads, T positions, M named positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.eviction.base import Candidates, Eviction, register_eviction
from kava.trace import KVTrace


@register_eviction("positions")
@dataclass(frozen=True, kw_only=True, eq=False)
class PositionsEviction(Eviction):
    """Keep given positions, in ascending order: for oracles, and to replay an earlier choice.

    Args:
        positions: [B, M], shared by all layers and heads, or [B, L, H, M] with scope "head":
            indices into the T axis, in any order; −1 marks an unused slot. The result has
            `target_len` slots; M may be smaller, and larger if the surplus is unused.
        scope: what the result records.

    Raises:
        ValueError: a wrong shape, a position that is no candidate or is named twice, more than
            `target_len` of them or none, or a number of them that differs between heads.

    Example:
        >>> kept, indices_BLHM = compress(trace, "positions", target_len=3, positions=index_B3)
    """

    positions: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions.is_floating_point() or self.positions.ndim not in (2, 4):
            raise ValueError(
                f"positions must be integers of shape [B, M] or [B, L, H, M], got "
                f"{self.positions.dtype} of shape {tuple(self.positions.shape)}"
            )
        if self.positions.ndim == 4 and self.scope != "head":
            raise ValueError(
                f"positions {tuple(self.positions.shape)} differ by layer and head, which "
                f"scope={self.scope!r} does not allow; pass scope='head', or positions [B, M]"
            )

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The named positions as a mask."""
        positions = self.positions.to(trace.keys.device, torch.int64)
        B, L, H, T, _ = trace.keys.shape
        if positions.shape[:-1] not in ((B,), (B, L, H)):
            raise ValueError(
                f"positions {tuple(positions.shape)} do not fit the trace: expected [{B}, M] or "
                f"[{B}, {L}, {H}, M]"
            )
        positions_BLHM = positions[:, None, None] if positions.ndim == 2 else positions
        used_BLHM = positions_BLHM != -1
        # Slot T takes what is unused or out of range, and is cut off below.
        inside_BLHM = (positions_BLHM >= 0) & (positions_BLHM < T)
        targets_BLHM = torch.where(inside_BLHM, positions_BLHM, T)
        counts_BLHT = torch.zeros(
            (*positions_BLHM.shape[:3], T + 1), dtype=torch.int64, device=positions.device
        ).scatter_add_(-1, targets_BLHM, used_BLHM.long())[..., :T]
        candidate_BLHM = inside_BLHM & candidates.mask[:, None, None].expand(
            -1, *positions_BLHM.shape[1:3], -1
        ).gather(-1, targets_BLHM.clamp(max=T - 1))
        self._check(positions_BLHM, used_BLHM & ~candidate_BLHM, "is no candidate")
        repeated_BLHM = counts_BLHT.gather(-1, targets_BLHM.clamp(max=T - 1)) > 1
        self._check(positions_BLHM, used_BLHM & repeated_BLHM, "is named twice")
        numbers_BN = used_BLHM.sum(dim=-1).flatten(1)
        fewest_B, most_B = numbers_BN.amin(dim=1), numbers_BN.amax(dim=1)
        wrong_B = (fewest_B != most_B) | (fewest_B < 1) | (most_B > target_len)
        if wrong_B.any():
            sample = int(wrong_B.nonzero()[0])
            raise ValueError(
                f"positions name {int(fewest_B[sample])} to {int(most_B[sample])} positions of "
                f"sample {sample}; every layer and head must name the same number, from 1 to "
                f"target_len={target_len}"
            )
        return counts_BLHT > 0

    def _check(self, positions_BLHM: Tensor, wrong_BLHM: Tensor, why: str) -> None:
        if wrong_BLHM.any():
            sample, *_, slot = where = wrong_BLHM.nonzero()[0].tolist()
            raise ValueError(
                f"positions[{sample}, …, {slot}] = {int(positions_BLHM[tuple(where)])} {why}; "
                f"name valid reasoning positions once each, and −1 for an unused slot"
            )
