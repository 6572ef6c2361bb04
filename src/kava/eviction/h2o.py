"""H2O-like: keep the heavy hitters, the positions that all later ones attend to.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
D head dim, R query rows of a chunk, N = B·L·H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kava.attention import HeadForm, attention_logits, normalise
from kava.eviction.base import Candidates, ScoredEviction, register_eviction
from kava.eviction.heads import (
    clean,
    cut,
    flat_keys,
    flat_queries,
    head_form,
    per_head,
    positions_per_head,
)
from kava.trace import KVTrace, Scope

ROWS = 128


@register_eviction("h2o")
@dataclass(frozen=True, kw_only=True)
class H2OEviction(ScoredEviction):
    """Keep the candidates that received the most attention from all later positions.

    Zhang et al., "H2O: Heavy-Hitter Oracle" (arXiv 2306.14048): the accumulated attention score.
    Every valid later query counts, the reasoning's and the answer's; its causal softmax runs
    over all valid keys up to itself, the prompt's too; the sum over the queries is not divided by
    their number.

    Deviations from the paper: a query's attention to itself is left out; the cache is scored once
    as a whole, not greedily as it grows; no share is reserved for recent positions; under
    grouped-query attention the group's mean counts; and the choice is shared over the model
    unless `scope` says otherwise.

    Args:
        scaling: what q·k is multiplied by, in the place of what the trace says of its model
            (`KVTrace.attention`); None keeps that, or D**-0.5 where the trace does not say.
        scope: default "model".

    Raises:
        ValueError: a trace without queries.

    Example:
        >>> kept, indices_BLHM = compress(trace, "h2o", target_len=8)
    """

    needs_queries: ClassVar[bool] = True

    scaling: float | None = None
    scope: Scope = "model"

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """The attention that each position got from later ones."""
        B, L, H, T, D = trace.keys.shape
        start = candidates.start
        queries_NGTD = flat_queries(trace, "h2o")
        G = queries_NGTD.shape[1]
        valid_NT = per_head(trace, trace.valid_BT())
        keys_NTD = flat_keys(trace, 0, T)
        form = head_form(trace, self.scaling)
        positions_NT = positions_per_head(trace) if form.has_reach else None
        scores_NT = torch.zeros(B * L * H, T, device=keys_NTD.device)
        for heads in cut(B * L * H, max(G * min(ROWS, T) * T, T * D), keys_NTD.device):
            valid = valid_NT[heads]
            keys = clean(keys_NTD[heads], valid)
            positions = None if positions_NT is None else positions_NT[heads]
            # Only queries after the first candidate are later than a candidate.
            for first in range(start + 1, T, ROWS):
                rows = slice(first, min(first + ROWS, T))
                queries = clean(queries_NGTD[heads, :, rows], valid[:, None, rows])
                scores_NT[heads, : rows.stop] += attention_received(
                    queries, keys, form[heads], valid, rows, positions
                )
        return (scores_NT / G).view(B, L, H, T)


def attention_received(
    queries: Tensor,
    keys: Tensor,
    form: HeadForm,
    valid: Tensor,
    rows: slice,
    positions: Tensor | None,
) -> Tensor:
    """The attention that every position gets from the later ones of a few rows.

    Args:
        queries: [N, G, R, D] of the columns `rows`.
        keys: [N, T, D].
        form: of these N heads.
        valid: [N, T] bool.
        rows: R columns of the T axis.
        positions: [N, T], needed where the form has a window or chunks.

    Returns:
        [N, rows.stop], summed over the rows and the group.
    """
    _, G, R, _ = queries.shape
    least = torch.finfo(keys.dtype).min
    with_sink = attention_logits(queries, keys[:, : rows.stop], form)
    logits_NGRT = with_sink[..., : rows.stop]
    if not bool(valid.all()):
        logits_NGRT.masked_fill_(~valid[:, None, None, : rows.stop], least)
    future_RR = torch.ones(R, R, dtype=torch.bool, device=keys.device).triu(1)
    logits_NGRT[..., rows].masked_fill_(future_RR, least)
    if positions is not None:
        far_NRT = form.out_of_reach(positions[:, rows], positions[:, : rows.stop])
        logits_NGRT.masked_fill_(far_NRT[:, None], least)
    attention_NGRT = normalise(with_sink, rows.stop)
    attention_NGRT[..., rows].diagonal(dim1=-2, dim2=-1).zero_()
    # An invalid row's weight of zero takes it out of the sum.
    weights_NQ = valid[:, rows].float().repeat(1, G)
    return (weights_NQ[:, None] @ attention_NGRT.flatten(1, 2))[:, 0]
