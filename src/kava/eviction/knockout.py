"""Knockout: keep the positions whose removal raises the teacher's loss most.

Shapes: B batch, T positions, M kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from kava.eviction.base import register_eviction
from kava.eviction.given import GivenScoresEviction


@register_eviction("knockout")
@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutEviction(GivenScoresEviction):
    """Keep the candidates without which the teacher reads its own text worst.

    A position's score is the rise in the teacher's cross-entropy over later supervised tokens
    when all later queries are blocked from it, in all layers and heads. Attention shows what a
    model reads; this shows what it depends on. We know of no published eviction of this kind;
    blocking attention to find what a prediction depends on is known from attention knockout
    (Geva et al., arXiv 2304.14767), there per layer window and for one answer.

    The scores come from `kava.importance.knockout`, which runs the model.

    Args:
        scores: [B, T], the rise in nats.

    Example:
        >>> kept, indices_BLHM = compress(trace, "knockout", target_len=3, scores=scores_BT)
    """
