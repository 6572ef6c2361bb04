"""What every fusion takes and gives, and the registry of fusions.

N teachers offer a target each, aligned to the student's geometry. A fusion gives every teacher a
weight, per sample, layer or slot, and the target is the weighted mean. Where a teacher has nothing
for a sample or a slot, the weights of the others are scaled to sum to 1.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim, N teachers, C features of a
query (H·D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from kava.trace import KVTrace


@dataclass(frozen=True, kw_only=True)
class Offers:
    """What N teachers offer for the samples of one batch.

    Attributes:
        traces: one of each teacher, [B, L, H, M, D] in the student's geometry.
        present_BN: whether the teacher read the sample and found reasoning in it.
        student: the student's trace at the slots, detached; None where it is not needed.
        query_BLC: the student's values where the reasoning begins, by layer, detached.
        answer_BN: log-probability of the gold answer under each teacher, summed over its tokens.
        text_BN: cross-entropy of reasoning and answer under each teacher, mean over its tokens.
        chosen_B: the teacher that the data name for each sample.
        explore: whether a router draws teachers at random, as in training, or takes the best.
    """

    traces: tuple[KVTrace, ...]
    present_BN: Tensor
    student: KVTrace | None = None
    query_BLC: Tensor | None = None
    answer_BN: Tensor | None = None
    text_BN: Tensor | None = None
    chosen_B: Tensor | None = None
    explore: bool = False

    @property
    def num_teachers(self) -> int:
        """N."""
        return len(self.traces)

    def valid_BMN(self) -> Tensor:
        """The slots that each teacher fills, bool."""
        filled = torch.stack([trace.valid_BT() for trace in self.traces], dim=-1)
        return filled & self.present_BN[:, None]


@dataclass(frozen=True, kw_only=True)
class Fused:
    """One target made of several.

    Attributes:
        trace: [B, L, H, M, D]; its mask holds the slots that a teacher with a weight fills.
        weights: [B, L or 1, M or 1, N], how much of each teacher was taken where all are present.
        position_weights: [B, M], how much each slot counts; None: all alike.
    """

    trace: KVTrace
    weights: Tensor
    position_weights: Tensor | None = None


class Fusion(ABC):
    """A way to make one target of several.

    Attributes:
        name: the name in the registry.
        reads: the fields of `Offers` that it needs beside the traces.
    """

    name: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def weigh(self, offers: Offers) -> Tensor:
        """The weight of each teacher, [B, L or 1, M or 1, N], 0 or more."""

    def choose(self, offers: Offers) -> Tensor | None:
        """The one teacher of each sample, [B] int64, where it is known before teachers read.

        `offers` has no traces then. None where several teachers count or their traces decide.
        """
        return None

    def __call__(self, offers: Offers) -> Fused:
        """Fuse the traces."""
        weights = self.weigh(offers)
        return Fused(trace=mix(offers, weights), weights=weights)


FUSIONS: dict[str, type[Fusion]] = {}


def register_fusion(cls: type[Fusion]) -> type[Fusion]:
    """Register a fusion under its `name`."""
    if cls.name in FUSIONS:
        raise ValueError(f"a fusion named {cls.name!r} is registered already; choose another name")
    FUSIONS[cls.name] = cls
    return cls


def build_fusion(name: str, **options: Any) -> Fusion:
    """Build a fusion by name; options that it does not have are left out.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> build_fusion("fixed", weights=(0.7, 0.3), temperature=2.0).weights
        (0.7, 0.3)
    """
    if name not in FUSIONS:
        raise ValueError(f"fusion={name!r} is unknown; choose from {', '.join(FUSIONS)}")
    cls = FUSIONS[name]
    known = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return cls(**{key: value for key, value in options.items() if key in known})


def renormalise(weights: Tensor, valid: Tensor) -> Tensor:
    """Weights over the valid teachers alone, that sum to 1 again where they did.

    Args:
        weights: [.., N], 0 or more.
        valid: [.., N] bool, broadcast against the weights.

    Returns:
        [.., N]; all 0 where no valid teacher has a weight. Rows without an invalid teacher are
        returned bit for bit.

    Example:
        >>> renormalise(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([True, True, False]))
        tensor([0.6667, 0.3333, 0.0000])
    """
    weights, valid = torch.broadcast_tensors(weights, valid)
    left = weights.masked_fill(~valid, 0.0)
    lost = weights.sum(-1, keepdim=True) / left.sum(-1, keepdim=True).clamp(min=1e-12)
    return torch.where(valid.all(-1, keepdim=True), left, left * lost)


def mix(offers: Offers, weights: Tensor) -> KVTrace:
    """The weighted mean of the offered traces.

    Args:
        offers: the traces, and which of them are there.
        weights: [B, L or 1, M or 1, N]; renormalised over the teachers that fill a slot.

    Returns:
        Positions and segments are those of the teacher with the largest weight in the batch.
    """
    first = offers.traces[0]
    N, B, M = offers.num_teachers, first.batch_size, first.length
    if weights.ndim != 4 or weights.shape[-1] != N:
        raise ValueError(
            f"weights must be [B, L or 1, M or 1, {N}], one for each teacher, got "
            f"{list(weights.shape)}"
        )
    valid_BMN = offers.valid_BMN()
    weights = renormalise(weights, valid_BMN[:, None])
    counts = (weights > 0).flatten(0, 2).any(0).tolist()

    def mean(parts: Sequence[Tensor]) -> Tensor:
        # a teacher that counts nowhere may hold anything: 0 · x is not 0 for all x
        terms = [
            weights[..., n][:, :, None, :, None]
            * parts[n].masked_fill(~valid_BMN[..., n][:, None, None, :, None], 0.0)
            for n in range(N)
            if counts[n]
        ]
        return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(parts[0])

    queries = None
    if all(trace.queries is not None for trace in offers.traces):
        queries = mean([trace.queries for trace in offers.traces if trace.queries is not None])
    main = offers.traces[int(weights.detach().sum((0, 1, 2)).argmax())]
    filled = weights.expand(B, -1, M, -1).detach().amax((1, 3)) > 0
    return replace(
        main,
        keys=mean([trace.keys for trace in offers.traces]),
        values=mean([trace.values for trace in offers.traces]),
        queries=queries,
        mask=filled,
    )


def one_hot(chosen_B: Tensor, num_teachers: int) -> Tensor:
    """[B, 1, 1, N] weights of one teacher for each sample."""
    return torch.nn.functional.one_hot(chosen_B, num_teachers).float()[:, None, None]


def needed(value: Tensor | KVTrace | None, name: str, fusion: str) -> Any:
    """A field of `Offers` that a fusion reads.

    Raises:
        ValueError: it is not there.
    """
    if value is None:
        raise ValueError(f"fusion={fusion!r} needs Offers.{name}, which is None")
    return value
