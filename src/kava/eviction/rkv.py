"""R-KV as the KaVa paper states it: keep keys that the answer attends to and no others repeat.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
D head dim, A answer positions, N = B·L·H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kava.attention import attention
from kava.eviction.base import Candidates, ScoredEviction, ascending_indices, register_eviction
from kava.eviction.heads import (
    clean,
    cut,
    flat_keys,
    flat_queries,
    head_form,
    hide_out_of_reach,
    per_head,
    take_rows,
)
from kava.eviction.redundancy import mean_cosine, softmax_over
from kava.trace import KVTrace, Scope, Segment


@register_eviction("rkv")
@dataclass(frozen=True, kw_only=True)
class RKVEviction(ScoredEviction):
    """Keep the candidates of the highest λ I + (1 − λ) R, per layer and head.

    Kuzina et al., "KaVa: Latent Reasoning via Compressed KV-Cache Distillation" (arXiv
    2510.02312), section on eviction: I is the mean over the answer's tokens of their attention to
    the reasoning keys, R the softmax of the negated mean cosine of a key with all reasoning keys.

    Where the paper leaves it open: the attention's softmax runs over the candidate keys alone (not
    the prompt's), and under grouped-query attention it is taken per query head, then the largest
    of the group counts, then the mean over the answer is taken. The cosine's diagonal is zero and
    its mean divides by the number of candidates. Keys and queries are compared as the trace holds
    them, rotated as in the model's own attention.

    Args:
        lam: λ from 0 to 1. At 1 the most attended are kept; towards 0, the least repeated. At 0
            no queries are needed.
        scaling: what q·k is multiplied by, in the place of what the trace says of its model
            (`KVTrace.attention`); None keeps that, or D**-0.5 where the trace does not say.
        scope: default "head", as in the paper.

    Raises:
        ValueError: λ outside 0 to 1; with λ > 0, a trace without queries or segments, or a sample
            without an answer.

    Example:
        >>> kept, indices_BLHM = compress(trace, "rkv", target_len=8, lam=0.1)
    """

    needs_queries: ClassVar[bool] = True

    lam: float = 0.1
    scaling: float | None = None
    scope: Scope = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam={self.lam} must lie between 0 (redundancy) and 1 (importance)")

    @property
    def reads_queries(self) -> bool:
        """Whether importance is part of the score."""
        return self.lam > 0

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """λ I + (1 − λ) R; both are zero at positions that are no candidates."""
        scores_BLHT = (1 - self.lam) * redundancy(trace, candidates)
        if self.lam > 0:
            scores_BLHT += self.lam * answer_importance(trace, candidates, self.scaling)
        return scores_BLHT


def redundancy(trace: KVTrace, candidates: Candidates) -> Tensor:
    """[B, L, H, T] R: how dissimilar a key is to the others, a distribution over the candidates."""
    B, L, H, T, D = trace.keys.shape
    start, stop = candidates.start, candidates.stop
    keys_NTD = flat_keys(trace, start, stop)
    mask_NT = per_head(trace, candidates.mask[:, start:stop])
    scores_NT = torch.zeros(B * L * H, T, device=keys_NTD.device)
    for heads in cut(B * L * H, (stop - start) * D, keys_NTD.device):
        keys = clean(keys_NTD[heads], mask_NT[heads])
        cosine_NT = mean_cosine(keys, mask_NT[heads])
        scores_NT[heads, start:stop] = softmax_over(-cosine_NT, mask_NT[heads])
    return scores_NT.view(B, L, H, T)


def answer_importance(trace: KVTrace, candidates: Candidates, scaling: float | None) -> Tensor:
    """[B, L, H, T] I: the answer's mean attention to each candidate, the largest of the group.

    Only the answer's rows of the attention are computed.
    """
    B, L, H, T, _ = trace.keys.shape
    start, stop = candidates.start, candidates.stop
    queries_NGTD = flat_queries(trace, "rkv")
    answers_BA, valid_BA = answer_columns(trace)
    answers_NA, valid_NA = per_head(trace, answers_BA), per_head(trace, valid_BA)
    mask_NT = per_head(trace, candidates.mask[:, start:stop])
    keys_NTD = flat_keys(trace, start, stop)
    queries_NGAD = take_rows(queries_NGTD, answers_NA)
    form = head_form(trace, scaling)
    hidden_NAT = hide_out_of_reach(~mask_NT[:, None], trace, form, answers_NA, start, stop)
    G, A = queries_NGAD.shape[1:3]
    scores_NT = torch.zeros(B * L * H, T, device=keys_NTD.device)
    for heads in cut(B * L * H, G * A * (stop - start), keys_NTD.device):
        keys = clean(keys_NTD[heads], mask_NT[heads])
        queries, hidden_N1AT = queries_NGAD[heads].float(), hidden_NAT[heads][:, None]
        attention_NGAT = attention(queries, keys, form[heads], hidden_N1AT)
        attention_NAT = attention_NGAT.amax(dim=1)
        weights_NA = valid_NA[heads] / valid_NA[heads].sum(dim=-1, keepdim=True)
        scores_NT[heads, start:stop] = (weights_NA[:, None] @ attention_NAT)[:, 0]
    return scores_NT.view(B, L, H, T)


def answer_columns(trace: KVTrace) -> tuple[Tensor, Tensor]:
    """The columns of each sample's answer [B, A], and which of them count [B, A].

    Raises:
        ValueError: the trace holds no segments, or a sample has no answer.
    """
    if trace.segment_ids is None:
        raise ValueError(
            "rkv scores by the answer's attention and the trace holds no segment_ids; capture it "
            "with segment_ids, or set lam=0"
        )
    answer_BT = trace.valid_BT() & (trace.segment_ids == Segment.ANSWER)
    counts_B = answer_BT.sum(dim=1)
    if not counts_B.all():
        raise ValueError(
            f"sample {int((counts_B == 0).nonzero()[0])} of the batch has no answer position, "
            f"whose attention rkv scores by; leave it out, or set lam=0"
        )
    num_columns = int(counts_B.max())
    valid_BA = torch.arange(num_columns, device=counts_B.device) < counts_B[:, None]
    return ascending_indices(answer_BT, num_columns), valid_BA
