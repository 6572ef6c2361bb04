"""The base of every eviction method: registry, candidates, top-M, sort and gather.

A method decides which candidates it keeps; all the rest is here. The choice is passed as a boolean
mask over the T axis: it has no order that could be wrong, and there is only one way to turn it into
ascending indices.

Shapes: B batch, L layers, H key/value heads, T positions of the input, M kept positions.
In a mask or a score, L and H may be 1 where the choice is shared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from kava.trace import SCOPES, KVTrace, Scope, Segment

EVICTIONS: dict[str, type[Eviction]] = {}

EvictionClass = TypeVar("EvictionClass", bound="type[Eviction]")


def register_eviction(name: str) -> Callable[[EvictionClass], EvictionClass]:
    """Register an eviction class under `name`, for `compress`, the commands and the tests.

    Raises:
        ValueError: the name is taken.
    """
    if name in EVICTIONS:
        raise ValueError(
            f"an eviction {name!r} is registered already ({EVICTIONS[name].__name__}); choose "
            f"another name"
        )

    def register(eviction: EvictionClass) -> EvictionClass:
        EVICTIONS[name] = eviction
        return eviction

    return register


def build_eviction(method: str, **options: Any) -> Eviction:
    """Make an eviction from its name and options.

    Args:
        method: a key of `EVICTIONS`.
        **options: the fields of that eviction's dataclass.

    Raises:
        ValueError: an unknown method, an unknown option, or one that the method needs and that
            is missing.

    Example:
        >>> build_eviction("rkv", lam=0.5).scope
        'head'
    """
    if method not in EVICTIONS:
        raise ValueError(f"method={method!r} is unknown; choose from {', '.join(EVICTIONS)}")
    known = {field.name: field for field in fields(EVICTIONS[method])}
    for name in options:
        if name not in known:
            raise ValueError(f"{name!r} is no option of {method!r}; choose from {', '.join(known)}")
    for name, field in known.items():
        if name not in options and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"method {method!r} needs the option {name!r}")
    return EVICTIONS[method](**options)


class Candidates(NamedTuple):
    """The positions that may be kept.

    Args:
        mask: [B, T] bool.
        counts: [B], the number of candidates of each sample; at least 1.
        start: the first column that is a candidate in any sample.
        stop: one past the last such column.
    """

    mask: Tensor
    counts: Tensor
    start: int
    stop: int


def find_candidates(trace: KVTrace) -> Candidates:
    """The valid positions of a trace; only those of the reasoning if the trace has segments.

    Raises:
        ValueError: a sample has none, or the segments differ by layer and head.
    """
    mask_BT = trace.valid_BT()
    what = "valid"
    if trace.segment_ids is not None:
        if trace.segment_ids.ndim != 2:
            raise ValueError(
                f"segment_ids {tuple(trace.segment_ids.shape)} differ by layer and head: this "
                f"trace was compressed before; compress the original instead"
            )
        mask_BT = mask_BT & (trace.segment_ids == Segment.REASONING)
        what = "reasoning"
    counts_B = mask_BT.sum(dim=1)
    columns = mask_BT.any(dim=0).nonzero()[:, 0].tolist()
    empty = (counts_B == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"sample {empty[0]} of the batch has no {what} position to keep; leave it out, or "
            f"look at its mask and segment_ids"
        )
    return Candidates(mask_BT, counts_B, columns[0], columns[-1] + 1)


def ascending_indices(mask: Tensor, length: int) -> Tensor:
    """The True positions of a mask as ascending indices.

    Args:
        mask: [..., T] bool, with 1 to `length` True in each row.
        length: M.

    Returns:
        [..., M] int64; a row with fewer than M repeats its last index.
    """
    ranks = mask.cumsum(dim=-1)
    slots = torch.where(mask & (ranks <= length), ranks - 1, length)
    indices = mask.new_zeros((*mask.shape[:-1], length + 1), dtype=torch.int64)
    columns = torch.arange(mask.shape[-1], device=mask.device).expand_as(mask)
    indices.scatter_(-1, slots, columns)
    last = (ranks[..., -1:] - 1).clamp(min=0, max=length - 1)
    used = torch.arange(length, device=mask.device)
    return indices.gather(-1, torch.minimum(used, last))


def top_mask(scores: Tensor, mask: Tensor, length: int) -> Tensor:
    """The `length` best candidates of each row; the earlier one wins a tie.

    `topk` does not guarantee an order of ties, so padding could change what is kept: here it only
    gives the threshold.

    Args:
        scores: [..., T], higher is kept; +inf is always kept.
        mask: [..., T] bool, the candidates; broadcast to the scores.
        length: M.

    Returns:
        [..., T] bool; where a row has fewer than M candidates, all of them.
    """
    scores = scores.masked_fill(~mask, -torch.inf)
    mask = mask.expand_as(scores)
    cut = scores.topk(min(length, scores.shape[-1]), dim=-1).values[..., -1:]
    above = (scores > cut) & mask
    level = (scores == cut) & mask
    return above | (level & (level.cumsum(dim=-1) <= length - above.sum(dim=-1, keepdim=True)))


@dataclass(frozen=True, kw_only=True)
class Eviction(ABC):
    """A rule that decides which candidates are kept when a trace is cut to a given length.

    Args:
        scope: how widely one choice is shared: "head" (each layer and head has its own), "layer"
            (all heads of a layer share one) or "model" (all layers and heads do).

    Attributes:
        needs_queries: whether the method scores by attention, so that a trace must be captured
            with its queries.
        needs_scores: whether the method takes a score per position, which must be computed with
            the teacher beforehand.

    Raises:
        ValueError: an unknown scope.
    """

    needs_queries: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False

    scope: Scope = "model"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"scope={self.scope!r} is unknown; choose from {', '.join(SCOPES)}")

    @property
    def reads_queries(self) -> bool:
        """Whether this instance scores by attention, given its options."""
        return self.needs_queries

    def num_slots(self, candidates: Candidates, target_len: int) -> int:
        """M, the length of the result."""
        return target_len

    @abstractmethod
    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """[B, L or 1, H or 1, T] bool: the kept positions, all of them candidates.

        A sample keeps the same number of positions in every row, at most `target_len`.
        """

    def __call__(self, trace: KVTrace, target_len: int) -> tuple[KVTrace, Tensor]:
        """Cut a trace to `target_len` positions.

        Returns:
            The trace of the kept positions, and their indices [B, L, H, M] into the T axis.

        Raises:
            ValueError: `target_len` below 1, or a sample without a candidate.
        """
        indices_BLHM, mask_BM = self.choose(trace, target_len)
        return self.take(trace, indices_BLHM, mask_BM), indices_BLHM

    def choose(self, trace: KVTrace, target_len: int) -> tuple[Tensor, Tensor]:
        """Choose the positions of a trace to keep, without copying them.

        Returns:
            Their indices [B, L, H, M] into the T axis, and which slots are in use, [B, M] bool.

        Raises:
            ValueError: `target_len` below 1, or a sample without a candidate.
        """
        if isinstance(target_len, bool) or not isinstance(target_len, int):
            raise ValueError(f"target_len={target_len!r} must be a whole number")
        if target_len < 1:
            raise ValueError(f"target_len={target_len} keeps nothing; it must be at least 1")
        candidates = find_candidates(trace)
        num_slots = self.num_slots(candidates, target_len)
        # Under a trainer's autocast the scores' matmuls would come out in half precision.
        with torch.no_grad(), torch.autocast(trace.keys.device.type, enabled=False):
            kept_BLHT = self.keep(trace, candidates, num_slots)
            indices_BLHM = ascending_indices(kept_BLHT, num_slots)
            used_B = kept_BLHT[:, 0, 0].sum(dim=-1)
            mask_BM = torch.arange(num_slots, device=used_B.device) < used_B[:, None]
        return indices_BLHM.expand(*trace.keys.shape[:3], num_slots), mask_BM

    def scores_at(self, trace: KVTrace, indices_BLHM: Tensor) -> Tensor | None:
        """The scores of chosen positions; None of a method that chooses without scores.

        Args:
            trace: from which they were chosen.
            indices_BLHM: the chosen ones.

        Returns:
            [B, L or 1, H or 1, M] float32, over which a choice is shared; higher is kept.
        """
        return None

    def take(self, trace: KVTrace, indices_BLHM: Tensor, mask_BM: Tensor) -> KVTrace:
        """Gather the chosen positions of this trace, or of one that carries other parts of it."""
        shared = self.scope == "model"
        indices = indices_BLHM[:, 0, 0] if shared else indices_BLHM
        return trace.gather(indices, mask=mask_BM, scope=self.scope)


class ScoredEviction(Eviction):
    """An eviction that scores every position of every layer and head and keeps the best.

    Where the choice is shared, the scores are averaged over the heads (scope "layer") or over
    layers and heads ("model") before the best are taken. Every sample has the same candidates in
    all heads, so every average is over heads that could keep the position.
    """

    @abstractmethod
    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """[B, L, H, T], higher is kept; only the candidates' scores are read."""

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The `target_len` best-scored candidates.

        Raises:
            ValueError: a candidate's score is not a number.
        """
        scores_BLHT = self.score(trace, candidates)
        mask_B11T = candidates.mask[:, None, None]
        broken_B = (scores_BLHT.isnan() & mask_B11T).flatten(1).any(dim=1)
        if broken_B.any():
            raise ValueError(
                f"sample {int(broken_B.nonzero()[0])} of the batch has scores that are not a "
                f"number: its keys or queries hold NaN or infinity at valid positions"
            )
        return top_mask(self._shared(scores_BLHT), mask_B11T, target_len)

    def scores_at(self, trace: KVTrace, indices_BLHM: Tensor) -> Tensor | None:
        """The scores of chosen positions, averaged over what shares a choice."""
        with torch.no_grad(), torch.autocast(trace.keys.device.type, enabled=False):
            scores_BLHT = self._shared(self.score(trace, find_candidates(trace)))
        L, H = scores_BLHT.shape[1:3]
        return scores_BLHT.float().gather(3, indices_BLHM[:, :L, :H])

    def _shared(self, scores_BLHT: Tensor) -> Tensor:
        if self.scope == "head":
            return scores_BLHT
        return scores_BLHT.mean(dim=(2,) if self.scope == "layer" else (1, 2), keepdim=True)


def compress(
    trace: KVTrace,
    method: str = "rkv",
    target_len: int = 8,
    *,
    scope: Scope | None = None,
    **options: Any,
) -> tuple[KVTrace, Tensor]:
    """Cut a trace to `target_len` positions by a named method.

    The latent student has M positions where the teacher wrote many more; eviction chooses the
    teacher's keys and values that they should match (KaVa, arXiv 2510.02312).

    Only valid positions are candidates, and where the trace knows its segments only those of the
    reasoning. A sample with fewer candidates than `target_len` keeps all of them: its remaining
    slots repeat the last kept position and are False in the result's mask.

    Args:
        trace: what to cut; methods that score by attention need its queries.
        method: a key of `EVICTIONS`.
        target_len: M. "full" keeps every candidate and ignores it.
        scope: how widely one choice is shared, "head", "layer" or "model"; None is the method's
            own default.
        **options: the fields of the method's dataclass.

    Returns:
        The trace of the kept positions, dtype, device and gradients kept, with the scope
        recorded; and their indices [B, L, H, M] into the T axis of the input, ascending.
        Positions and segments of the result are [B, M] for scope "model", else [B, L, H, M].

    Raises:
        ValueError: an unknown method or option, an option out of its range, `target_len` below 1,
            a sample without candidates, or a part of the trace that the method needs and lacks.

    Example:
        >>> trace = KVTrace(torch.randn(2, 3, 4, 20, 8), torch.randn(2, 3, 4, 20, 8))
        >>> kept, indices_BLHM = compress(trace, "uniform", target_len=5)
        >>> indices_BLHM.shape, kept.length, kept.scope
        (torch.Size([2, 3, 4, 5]), 5, 'model')
    """
    if scope is not None:
        options["scope"] = scope
    return build_eviction(method, **options)(trace, target_len)
