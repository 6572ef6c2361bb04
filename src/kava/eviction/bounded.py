"""A cache of bounded size for texts that are read block by block: which positions stay in it.

After each block the first positions (attention sinks) and the most recent ones stay, and of those
between them the ones with the highest scores. Scores are carried along, so that nothing that was
dropped is needed again.

Shapes: B batch, L layers, H key/value heads, Hq query heads, G query heads per key/value head,
S positions in the cache, R positions of a block, D head dim, M kept positions, N = B·L·H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kava.eviction.base import Candidates, ascending_indices, top_mask
from kava.eviction.h2o import ROWS, attention_received
from kava.eviction.heads import clean, cut, flat_keys, head_form, per_head, positions_per_head
from kava.eviction.rkv import redundancy
from kava.eviction.streaming_llm import DEFAULT_SINKS
from kava.names import CACHE_SCORES
from kava.trace import SCOPES, KVTrace, Scope


@dataclass(frozen=True, kw_only=True)
class CacheBudget:
    """How many positions a bounded cache holds, and which.

    Sinks and recent positions as in StreamingLLM (arXiv 2309.17453); scores by the attention that a
    position has received, as in H2O (arXiv 2306.14048), or by that and the redundancy of keys, as
    in R-KV (arXiv 2505.24133): λ I + (1 − λ) R, where I is a position's share of the attention that
    all positions in the cache have received, and R the softmax of its negated mean cosine with
    them.

    Deviations: positions keep their numbers, where StreamingLLM counts them anew inside the cache;
    positions are dropped block by block, where H2O drops one with every token; a position's
    attention to itself is left out; R-KV scores by the newest queries, here all count.

    Args:
        size: M, positions that stay after each block.
        num_sinks: first positions of each text, which always stay. None: 4, or size // 2 if that
            is less.
        num_recent: newest positions, which always stay. None: half of what the sinks leave, or all
            of it where `score` is "recent".
        score: of the other positions: "rkv", "h2o", or "recent", which leaves no others.
        lam: λ of "rkv", from 0 to 1.
        scope: how widely one choice is shared: "head", "layer" or "model".

    Raises:
        ValueError: a value outside its range, or sinks and recent positions above the size.

    Example:
        >>> CacheBudget(size=64).recent, CacheBudget(size=64, score="recent").recent
        (30, 60)
    """

    size: int
    num_sinks: int | None = None
    num_recent: int | None = None
    score: str = "rkv"
    lam: float = 0.1
    scope: Scope = "model"

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("num_sinks", 0), ("num_recent", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if self.score not in CACHE_SCORES:
            raise ValueError(
                f"score={self.score!r} is unknown; choose from {', '.join(CACHE_SCORES)}"
            )
        if self.scope not in SCOPES:
            raise ValueError(f"scope={self.scope!r} is unknown; choose from {', '.join(SCOPES)}")
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam={self.lam} must lie between 0 (redundancy) and 1 (attention)")
        if self.sinks + self.recent > self.size:
            raise ValueError(
                f"{self.sinks} sinks and {self.recent} recent positions are more than the "
                f"{self.size} of the cache: lower them, or raise the budget"
            )
        if self.score == "recent" and self.sinks + self.recent < self.size:
            raise ValueError(
                f"{self.sinks} sinks and {self.recent} recent positions leave "
                f"{self.size - self.sinks - self.recent} of {self.size} to scores, and "
                f"score='recent' has none: leave num_recent out, or choose rkv or h2o"
            )

    @property
    def sinks(self) -> int:
        """The number of first positions that stay."""
        return min(DEFAULT_SINKS, self.size // 2) if self.num_sinks is None else self.num_sinks

    @property
    def recent(self) -> int:
        """The number of newest positions that stay."""
        if self.num_recent is not None:
            return self.num_recent
        left = max(self.size - self.sinks, 0)
        return left if self.score == "recent" else left // 2

    def choose(self, trace: KVTrace, received: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Which positions of the cache stay.

        Args:
            trace: the cache, [B, L, H, S, D], with `positions` and a mask.
            received: [B, L, H, S], attention that each position has received.
            seen: [B], positions of each text that were read.

        Returns:
            Indices [B, L, H, M] into the S axis, ascending, and which of them are in use, [B, M].
            A text with fewer positions than M keeps all of them.
        """
        valid_BS = trace.valid_BT()
        with torch.no_grad(), torch.autocast(trace.keys.device.type, enabled=False):
            scores_BLHS = self.scores(trace, received)
            assert trace.positions is not None
            shared = trace.positions.ndim == 2
            at = trace.positions[:, None, None] if shared else trace.positions
            stays = (at < self.sinks) | (at >= seen[:, None, None, None] - self.recent)
            scores_BLHS = scores_BLHS.masked_fill(stays, torch.inf)
            kept_BLHS = top_mask(scores_BLHS, valid_BS[:, None, None], self.size)
            num_slots = min(self.size, trace.length)
            indices_BLHM = ascending_indices(kept_BLHS, num_slots)
            used_B = kept_BLHS[:, 0, 0].sum(dim=-1)
            mask_BM = torch.arange(num_slots, device=used_B.device) < used_B[:, None]
        return indices_BLHM.expand(*trace.keys.shape[:3], num_slots), mask_BM

    def scores(self, trace: KVTrace, received: Tensor) -> Tensor:
        """Scores of the cache's positions, averaged over what shares a choice.

        Args:
            trace: the cache.
            received: [B, L, H, S].

        Returns:
            [B, L or 1, H or 1, S], higher stays.
        """
        valid_BS = trace.valid_BT()
        received = received.masked_fill(~valid_BS[:, None, None], 0.0)
        scores_BLHS = received
        if self.score == "rkv":
            total = received.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(received.dtype).tiny)
            everyone = Candidates(valid_BS, valid_BS.sum(dim=1), 0, trace.length)
            scores_BLHS = self.lam * received / total
            if self.lam < 1:
                scores_BLHS = scores_BLHS + (1 - self.lam) * redundancy(trace, everyone)
        if self.scope == "head":
            return scores_BLHS
        return scores_BLHS.mean(dim=(2,) if self.scope == "layer" else (1, 2), keepdim=True)

    def cut(self, trace: KVTrace, received: Tensor, seen: Tensor) -> tuple[KVTrace, Tensor]:
        """The cache after a block, and the attention that what stays has received.

        Args:
            trace: the cache, with the block at its end.
            received: [B, L, H, S].
            seen: [B], positions of each text that were read.

        Returns:
            A trace of at most `size` positions, and [B, L, H, M].
        """
        if trace.length <= self.size:
            return trace, received
        indices_BLHM, mask_BM = self.choose(trace, received, seen)
        indices = indices_BLHM[:, 0, 0] if self.scope == "model" else indices_BLHM
        kept = trace.gather(indices, mask=mask_BM, scope=self.scope)
        return kept, received.gather(3, indices_BLHM)


def received_from_block(trace: KVTrace, queries: Tensor) -> Tensor:
    """The attention that the positions of a cache receive from the queries of its last block.

    Every valid query counts, with a causal softmax over all valid keys in the cache up to itself;
    its attention to itself is left out. The sum over queries, and the mean over a query group.

    Args:
        trace: the cache with the block at its end, S positions, and the form of attention.
        queries: [B, L, Hq, R, D], of the last R positions.

    Returns:
        [B, L, H, S] float32.
    """
    B, L, H, S, D = trace.keys.shape
    start = S - queries.shape[3]
    queries_NGRD = queries.unflatten(2, (H, -1)).flatten(0, 2)
    G, R = queries_NGRD.shape[1:3]
    keys_NSD, valid_NS = flat_keys(trace, 0, S), per_head(trace, trace.valid_BT())
    form = head_form(replace(trace, queries=None), None)
    positions_NS = positions_per_head(trace) if form.has_reach else None
    received_NS = torch.zeros(B * L * H, S, device=keys_NSD.device)
    with torch.no_grad(), torch.autocast(keys_NSD.device.type, enabled=False):
        for heads in cut(B * L * H, max(G * min(ROWS, R) * S, S * D), keys_NSD.device):
            valid = valid_NS[heads]
            keys = clean(keys_NSD[heads], valid)
            positions = None if positions_NS is None else positions_NS[heads]
            for first in range(start, S, ROWS):
                rows = slice(first, min(first + ROWS, S))
                block = queries_NGRD[heads, :, first - start : rows.stop - start]
                received_NS[heads, : rows.stop] += attention_received(
                    clean(block, valid[:, None, rows]), keys, form[heads], valid, rows, positions
                )
    return (received_NS / G).view(B, L, H, S)
