"""Paired vectors and traces with a known map between them, for the tests of calibration."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kava.align import MapProjectionAligner
from kava.align.geometry import HeadDims
from kava.align.kronecker import sum_terms
from kava.align.linear_maps import mix_layers
from kava.fit.moments import PairStatistics
from kava.fit.statistics import TracePair
from kava.trace import KVTrace

L_T, L_S = 3, 2
SHAPE = HeadDims(num_heads_in=3, num_heads_out=2, head_dim_in=4, head_dim_out=5)
"""The teacher's heads and head dim, and the student's."""


def make_aligner(**options: object) -> MapProjectionAligner:
    return MapProjectionAligner(
        num_teacher_layers=L_T,
        num_student_layers=L_S,
        num_teacher_heads=SHAPE.num_heads_in,
        num_student_heads=SHAPE.num_heads_out,
        teacher_head_dim=SHAPE.head_dim_in,
        student_head_dim=SHAPE.head_dim_out,
        per_layer=True,
        **options,  # type: ignore[arg-type]
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_terms(rank: int, per_head: bool = False, seed: int = 0) -> Tensor:
    """The matrices [L_s, C_out, C_in] of a random map of so many terms."""
    generator = seeded(seed)
    heads = (SHAPE.num_heads_out,) if per_head else ()
    mix = torch.randn(L_S, rank, SHAPE.num_heads_out, SHAPE.num_heads_in, generator=generator)
    dims = torch.randn(
        L_S, rank, *heads, SHAPE.head_dim_out, SHAPE.head_dim_in, generator=generator
    )
    return sum_terms(mix, dims).double()


def vectors(
    num_positions: int, weight_LOI: Tensor, noise: float = 0.0, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Correlated x [N, L, C_in] far from zero, and y = W x + 7 + noise of that share of y's std."""
    generator = seeded(seed)
    L, _, C = weight_LOI.shape
    mixing = torch.randn(C, C, generator=seeded(5), dtype=torch.float64) / C**0.5
    x = torch.randn(num_positions, L, C, generator=generator, dtype=torch.float64) @ mixing + 20
    y = torch.einsum("nli,loi->nlo", x, weight_LOI)
    disturbance = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return x, y + 7 + noise * y.std(0) * disturbance


def statistics_of(x: Tensor, y: Tensor) -> PairStatistics:
    statistics = PairStatistics(x.shape[1], x.shape[2], y.shape[2])
    statistics.update(x, y)
    return statistics


def trace_pairs(
    num_batches: int,
    weight_LOI: Tensor,
    *,
    noise: float = 0.3,
    seed: int = 0,
    batch_size: int = 4,
    queries: bool = False,
    aligner: MapProjectionAligner | None = None,
) -> Iterator[TracePair]:
    """Ragged batches in which the student's cache is a map of the teacher's mixed layers.

    With a map of the other direction, the teacher's is a map of the student's (one layer each).
    """
    generator = seeded(seed)
    rows = (aligner or make_aligner()).layer_rows
    maps = weight_LOI.float().unflatten(2, (SHAPE.num_heads_in, -1))
    maps = maps.unflatten(1, (SHAPE.num_heads_out, -1))
    for _ in range(num_batches):
        T = 9
        theirs = torch.randn(batch_size, L_T, SHAPE.num_heads_in, T, 4, generator=generator)
        ours = torch.einsum("lhpgd,blgtd->blhtp", maps, mix_layers(theirs, rows))
        ours = ours + 3 + noise * ours.std() * torch.randn(ours.shape, generator=generator)
        lengths = torch.randint(3, T + 1, (batch_size, 1), generator=generator)
        mask = torch.arange(T) >= T - lengths  # padding on the left
        hole = ~mask[:, None, None, :, None]
        theirs, ours = theirs.masked_fill(hole, 1e6), ours.masked_fill(hole, -1e6)
        yield TracePair(
            KVTrace(theirs, -theirs, theirs if queries else None),
            KVTrace(ours, 2 * ours, ours if queries else None),
            mask,
        )
