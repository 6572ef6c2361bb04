"""Knockout, estimated: keep the positions whose removal would raise the loss most, to first order.

Shapes: B batch, T positions, M kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from kava.eviction.base import register_eviction
from kava.eviction.given import GivenScoresEviction


@register_eviction("knockout_gradient")
@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutGradientEviction(GivenScoresEviction):
    """Keep the candidates of the highest estimated knockout score.

    One forward and one backward of the teacher instead of one pass per position; the scores come
    from `kava.importance.gradient`, which explains the estimate.

    Args:
        scores: [B, T].

    Example:
        >>> kept, indices_BLHM = compress(trace, "knockout_gradient", 3, scores=scores_BT)
    """
