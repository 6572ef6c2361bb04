"""R-KV as its public reference computes it.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
D head dim, W window positions, R rows of a chunk, C columns of a tile, N = B·L·H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from kava.attention import HeadForm, attention_logits, normalise
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
from kava.eviction.redundancy import SMALLEST_NORM, mean_cosine, softmax_over
from kava.eviction.rows import DEFAULT_WINDOW, newest, resolve_window
from kava.trace import KVTrace, Scope

ROWS = 128
TILE = 64


@register_eviction("rkv_official")
@dataclass(frozen=True, kw_only=True)
class RKVOfficialEviction(ScoredEviction):
    """Keep the newest window and, of the rest, the highest λ I − (1 − λ) R, per layer and head.

    Cai et al., "R-KV" (arXiv 2505.24133), after the released code where it differs from the
    paper. I: the attention of the window's queries to the positions before it (largest logit of
    the query group, softmax over those positions, mean over the window), then the maximum over
    `kernel_size` neighbours. R: the softmax over all candidates of a key's mean cosine with the
    others, where each key i exempts one from its own share: the newest key whose cosine with i
    exceeds `threshold` or, if none does, the first candidate (as the code does).

    Deviations: every sample of a batch is scored (the reference scores the first and uses it for
    all); only candidates take part, so that the window is the end of the reasoning and neither
    prompt nor answer is looked at; and where `target_len` leaves the window no room, which the
    reference refuses, the window shrinks to half of it.

    Args:
        lam: λ from 0 to 1.
        window_size: W, the number of newest candidates, which are always kept and whose queries
            score the rest; must be below `target_len`. None is the reference's 8, or
            target_len // 2 (at least 1) where target_len is 8 or less.
        kernel_size: odd width of the maximum.
        threshold: the cosine above which keys count as similar, 0 to 1.
        scaling: what q·k is multiplied by, in the place of what the trace says of its model
            (`KVTrace.attention`); None keeps that, or D**-0.5 where the trace does not say.
        scope: default "head", as in the reference.

    Raises:
        ValueError: an option out of its range, a window not below `target_len`, or a trace
            without queries.

    Example:
        >>> kept, indices_BLHM = compress(trace, "rkv_official", target_len=24)
    """

    needs_queries: ClassVar[bool] = True

    lam: float = 0.07
    window_size: int | None = None
    kernel_size: int = 7
    threshold: float = 0.5
    scaling: float | None = None
    scope: Scope = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam={self.lam} must lie between 0 (redundancy) and 1 (importance)")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be a cosine between 0 and 1")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size} must be odd and positive")
        if self.window_size is not None and self.window_size < 1:
            raise ValueError(f"window_size={self.window_size} must be at least 1")

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The window and the best-scored candidates before it."""
        resolved = replace(self, window_size=resolve_window(self.window_size, target_len))
        return ScoredEviction.keep(resolved, trace, candidates, target_len)

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """λ I − (1 − λ) R before the window, and +inf inside it."""
        B, L, H, T, D = trace.keys.shape
        window_size = self.window_size or DEFAULT_WINDOW
        start, stop = candidates.start, candidates.stop
        window_BT = newest(candidates, window_size)
        columns_NW = per_head(trace, ascending_indices(window_BT, window_size))
        queries_NGWD = take_rows(flat_queries(trace, "rkv_official"), columns_NW)
        keys_NTD = flat_keys(trace, start, stop)
        mask_NT = per_head(trace, candidates.mask[:, start:stop])
        window_NT = per_head(trace, window_BT[:, start:stop])
        form = head_form(trace, self.scaling)
        hidden_NWT = hide_out_of_reach(
            (~mask_NT | window_NT)[:, None], trace, form, columns_NW, start, stop
        )
        scores_NT = torch.zeros(B * L * H, T, device=keys_NTD.device)
        for heads in cut(B * L * H, (stop - start) * max(ROWS, D), keys_NTD.device):
            mask = mask_NT[heads]
            keys = clean(keys_NTD[heads], mask)
            importance_NT = window_importance(
                queries_NGWD[heads].float(), keys, form[heads], hidden_NWT[heads]
            )
            pooled_NT = functional.max_pool1d(
                importance_NT, self.kernel_size, stride=1, padding=self.kernel_size // 2
            )
            similarity_NT = exempted_cosine(keys, mask, self.threshold)
            scores_NT[heads, start:stop] = self.lam * pooled_NT - (1 - self.lam) * softmax_over(
                similarity_NT, mask
            )
        scores_BLHT = scores_NT.view(B, L, H, T)
        return scores_BLHT.masked_fill(window_BT[:, None, None], torch.inf)


def window_importance(queries: Tensor, keys: Tensor, form: HeadForm, hidden: Tensor) -> Tensor:
    """The window's mean attention to the positions before it.

    Args:
        queries: [N, G, W, D].
        keys: [N, T, D].
        form: of these N heads; a sink, as a position would, has the largest logit of its group.
        hidden: [N, W or 1, T] bool: all but the candidates before the window, and what a query
            does not see of them.

    Returns:
        [N, T], zero at hidden positions.
    """
    logits_NWT = attention_logits(queries, keys, form, hidden[:, None]).amax(dim=1)
    # A window that holds all candidates has nothing before it, and the softmax comes out even.
    return normalise(logits_NWT, keys.shape[1], hidden).mean(dim=1)


def exempted_cosine(keys: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """The mean cosine of each key with the others, less the pairs that recency exempts.

    The pairs are visited in chunks of rows. All that is needed of a row is the newest column
    above the threshold; the sums come from the closed form of `mean_cosine`.

    Args:
        keys: [N, T, D], zero where `mask` is False.
        mask: [N, T] bool.
        threshold: not below 0, so that a zero key is like none.

    Returns:
        [N, T].
    """
    T = keys.shape[1]
    norms_NT1 = torch.linalg.vector_norm(keys, dim=-1, keepdim=True)
    units_NTD = functional.pad(keys / norms_NT1.clamp(min=SMALLEST_NORM), (0, 0, 0, -T % TILE))
    tiles_K = torch.arange(units_NTD.shape[1] // TILE, device=keys.device)
    tile_C = torch.arange(TILE, device=keys.device)
    first_N1 = mask.int().argmax(dim=-1, keepdim=True)
    exempt_NT = torch.zeros_like(mask, dtype=keys.dtype)
    for start in range(0, T, ROWS):
        rows = slice(start, min(start + ROWS, T))
        cosine_NRT = units_NTD[:, rows] @ units_NTD.transpose(1, 2)
        cosine_NRT[..., rows].diagonal(dim1=-2, dim2=-1).zero_()
        # Reading the newest column off whole tiles first touches the large tensor only once.
        tiles_NRKC = cosine_NRT.unflatten(-1, (-1, TILE))
        alike_NRK = tiles_NRKC.amax(dim=-1) > threshold
        tile_NR = torch.where(alike_NRK, tiles_K, 0).amax(dim=-1)
        index_NR1C = tile_NR[..., None, None].expand(-1, -1, 1, TILE)
        alike_NRC = tiles_NRKC.gather(2, index_NR1C)[:, :, 0] > threshold
        newest_NR = tile_NR * TILE + torch.where(alike_NRC, tile_C, 0).amax(dim=-1)
        newest_NR = torch.where(alike_NRK.any(dim=-1), newest_NR, first_N1)
        exempt_NT.scatter_add_(-1, newest_NR, cosine_NRT.gather(-1, newest_NR[..., None])[..., 0])
    return mean_cosine(keys, mask) - exempt_NT / mask.sum(dim=-1, keepdim=True)
