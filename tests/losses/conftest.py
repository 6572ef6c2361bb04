"""Pairs of traces with ragged masks, shared by the tests of the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kava.trace import KVTrace

MakePair = Callable[..., tuple[KVTrace, KVTrace]]


@pytest.fixture
def make_pair() -> MakePair:
    """(student, target): random, the student with gradients, the target too but to no avail."""

    def make(
        lengths: tuple[int, ...] = (4, 1, 3),
        num_layers: int = 2,
        num_heads: int = 2,
        num_query_heads: int = 4,
        head_dim: int = 5,
        num_slots: int | None = None,
        seed: int = 0,
        scale: float = 2.0,
    ) -> tuple[KVTrace, KVTrace]:
        generator = torch.Generator().manual_seed(seed)
        B, M = len(lengths), num_slots or max(lengths)

        def random(heads: int) -> torch.Tensor:
            shape = (B, num_layers, heads, M, head_dim)
            return (scale * torch.randn(shape, generator=generator)).requires_grad_()

        mask = torch.arange(M) < torch.tensor(lengths)[:, None]
        student, target = (
            KVTrace(random(num_heads), random(num_heads), random(num_query_heads)) for _ in range(2)
        )
        return student, replace(target, mask=mask)

    return make


def parts(trace: KVTrace) -> list[torch.Tensor]:
    """The keys, values and queries of a trace."""
    assert trace.queries is not None
    return [trace.keys, trace.values, trace.queries]
