"""TOVA-like: keep what the newest position attends to.

Shapes: B batch, L layers, H key/value heads, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kava.eviction.base import Candidates, ScoredEviction, register_eviction
from kava.eviction.rows import attention_of_rows, newest
from kava.trace import KVTrace, Scope


@register_eviction("tova")
@dataclass(frozen=True, kw_only=True)
class TOVAEviction(ScoredEviction):
    """Keep the newest candidate and those that its query attends to most, per layer.

    Oren et al., "Transformers are Multi-State RNNs" (arXiv 2401.06104), Token Omission Via
    Attention: the attention of the last query, averaged over a layer's heads.

    Deviations: the paper drops one position at every step, by that step's query; here all are
    dropped at once, by the query of the last candidate, the end of the reasoning. Its softmax
    runs over all valid keys, the prompt's too, and the last candidate itself is kept.

    Args:
        scaling: what q·k is multiplied by, in the place of what the trace says of its model
            (`KVTrace.attention`); None keeps that, or D**-0.5 where the trace does not say.
        scope: default "layer", as in the paper.

    Raises:
        ValueError: a trace without queries.

    Example:
        >>> kept, indices_BLHM = compress(trace, "tova", target_len=8)
    """

    needs_queries: ClassVar[bool] = True

    scaling: float | None = None
    scope: Scope = "layer"

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """The newest candidate's attention, and +inf at itself."""
        newest_BT = newest(candidates, 1)
        attention_BLHT = attention_of_rows(trace, newest_BT, 1, "tova", self.scaling)
        return attention_BLHT.masked_fill(newest_BT[:, None, None], float("inf"))
