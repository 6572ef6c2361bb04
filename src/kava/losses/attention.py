"""Position weights from the teacher's attention: positions that the answer attends to count more.

Shapes: B batch, L layers, H key/value heads, T positions of the teacher's text, M kept positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.eviction.base import find_candidates
from kava.eviction.rkv import answer_importance
from kava.trace import KVTrace


@torch.no_grad()
def attention_weights(trace: KVTrace, columns: Tensor, scaling: float | None = None) -> Tensor:
    """How much the teacher's answer attends to each kept position.

    The attention is the importance that R-KV scores by (`kava.eviction.rkv.answer_importance`,
    arXiv 2510.02312): of the answer's queries, over the reasoning's keys alone, the largest of a
    query group, averaged over the answer. Here it is averaged over layers and heads too, so that
    a slot has one weight in the whole model.

    Args:
        trace: the teacher's, with queries and segments, before its positions were chosen.
        columns: [B, M] or [B, L, H, M], the kept positions.
        scaling: what the teacher multiplies q·k by; None is D**-0.5.

    Returns:
        [B, M], 0 or more; `kava.losses.weights.unit_mean_weights` gives them a mean of 1 over
        the valid slots of a sample.

    Raises:
        ValueError: a trace without queries or segments, or a sample without an answer.

    Example:
        >>> x = torch.randn(1, 2, 2, 5, 4)
        >>> trace = KVTrace(x, x, x, segment_ids=torch.tensor([[0, 1, 1, 1, 2]]))
        >>> attention_weights(trace, torch.tensor([[1, 3]])).shape
        torch.Size([1, 2])
    """
    importance_BLHT = answer_importance(trace, find_candidates(trace), scaling)
    if columns.ndim == 2:
        return importance_BLHT.mean(dim=(1, 2)).gather(1, columns)
    return importance_BLHT.gather(3, columns).mean(dim=(1, 2))
