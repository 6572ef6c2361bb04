"""Evictions by scores that were computed beforehand, one per position.

Shapes: B batch, L layers, H key/value heads, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kava.eviction.base import Candidates, ScoredEviction
from kava.trace import KVTrace


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenScoresEviction(ScoredEviction):
    """Keep the candidates of the highest given scores.

    A causal score needs forward passes of the model, not only a trace: it is computed once per
    sample (`kava.importance`) and passed in. There is one score per position, so every layer and
    head keeps the same positions in any scope.

    Args:
        scores: [B, T] floating, higher is kept; only candidates' scores are read.
        scope: what the result records.

    Raises:
        ValueError: scores of another shape or kind, or not a number at a candidate.
    """

    needs_scores: ClassVar[bool] = True

    scores: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scores.is_floating_point() or self.scores.ndim != 2:
            raise ValueError(
                f"scores must be floating numbers of shape [B, T], got {self.scores.dtype} of "
                f"shape {tuple(self.scores.shape)}"
            )

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """The given scores, for every layer and head."""
        B, L, H, T, _ = trace.keys.shape
        if self.scores.shape != (B, T):
            raise ValueError(
                f"scores {tuple(self.scores.shape)} do not fit the trace: expected [{B}, {T}]"
            )
        scores_BT = self.scores.to(trace.keys.device).float()
        if self.scope == "model":
            return scores_BT[:, None, None]
        return scores_BT[:, None, None].expand(-1, L, H, -1)
