"""Key-norm eviction: keep the positions whose keys are shortest.

Shapes: B batch, L layers, H key/value heads, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.eviction.base import Candidates, ScoredEviction, register_eviction
from kava.trace import KVTrace, Scope


@register_eviction("key_norm")
@dataclass(frozen=True, kw_only=True)
class KeyNormEviction(ScoredEviction):
    """Keep the candidates with the shortest keys, per layer and head.

    Devoto et al., "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression"
    (arXiv 2406.11430): short keys tend to be attended to more. It needs no queries, and neither
    rotation nor un-rotation changes a length.

    Deviation: every layer is compressed, where the paper spares the first two in language
    modelling.

    Args:
        scope: default "head", as in the paper.

    Example:
        >>> kept, indices_BLHM = compress(trace, "key_norm", target_len=8)
    """

    scope: Scope = "head"

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """The negated length of every key."""
        return -torch.linalg.vector_norm(trace.keys.float(), dim=-1)
