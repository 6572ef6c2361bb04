"""The maps of keys, values or queries: fitted to training statistics, judged on held-out ones.

Shapes: L layers of the student, N positions, C_in/C_out coordinates of input and target.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from kava.align.heads.layerwise import LayerwiseProjector
from kava.fit.kronecker import KroneckerFit, fit_kronecker
from kava.fit.least_squares import fit_ridge, fit_scale
from kava.fit.moments import r_squared
from kava.fit.report import Quality
from kava.fit.statistics import PairSet, head_dims

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Strengths that are tried, relative to the mean eigenvalue of the inputs' covariance."""

RANDOM_SEED = 2510_02312
"""Seed of the random map; models and data use other seeds, whose draws it would repeat."""


class FittedMap(NamedTuple):
    """A map of every layer, as a matrix, with the ridge that it was fitted with."""

    weight: Tensor
    """[L, C_out, C_in]."""
    bias: Tensor
    """[L, C_out]."""
    ridge: Tensor
    """[L]."""
    terms: KroneckerFit | None = None
    """Where the map is structured."""


def fit_full(training: PairSet, held_out: PairSet, ridge: float | None) -> FittedMap:
    """The ridge solution, with the ridge of each layer that is best on held-out pairs.

    Args:
        training: the pairs that the map is fitted to.
        held_out: the pairs that choose among `RIDGES`.
        ridge: one strength instead of them.
    """
    tried = RIDGES if ridge is None else (ridge,)
    scores = torch.stack(
        [r_squared(held_out.statistics, *fit_ridge(training.statistics, one)) for one in tried]
    )
    ridge_L = scores.new_tensor(tried)[scores.argmax(0)]
    return FittedMap(*fit_ridge(training.statistics, ridge_L), ridge_L)


def restrict(
    full: FittedMap, training: PairSet, projector: LayerwiseProjector, rank: int | None
) -> FittedMap:
    """The best map of a sum of terms, with the ridge of the full one.

    Args:
        full: the ridge solution.
        training: the pairs that it was fitted to.
        projector: whose heads and kind of dim maps the map has.
        rank: the number of terms; None is the full map itself.
    """
    if rank is None:
        return full
    fit = fit_kronecker(
        training.statistics, head_dims(projector), rank, projector.per_head, full.ridge
    )
    return FittedMap(fit.dense(), fit.bias, full.ridge, fit)


def random_map(training: PairSet, projector: LayerwiseProjector, rank: int | None) -> FittedMap:
    """A random map, each output scaled and shifted as fits the training pairs best.

    Args:
        training: the pairs.
        projector: whose form the map has, but for the rank.
        rank: the number of terms; None is a full matrix.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        random = LayerwiseProjector(
            projector.num_layers,
            *head_dims(projector),
            rank=rank,
            per_head=projector.per_head,
            init_uniform=False,
        )
    weight = random.dense().to(training.statistics.mean_x)
    return FittedMap(*fit_scale(training.statistics, weight), weight.new_zeros(len(weight)))


def judge(fitted: FittedMap, held_out: PairSet, head_dim: int) -> list[Quality]:
    """R² from the moments, and the mean cosine over the sampled positions and the heads.

    Cosines are taken around the held-out mean: a common offset, which keys have, would make any
    two vectors alike.

    Args:
        fitted: a map.
        held_out: pairs that it was not fitted to.
        head_dim: of the target.
    """
    centre = held_out.statistics.mean_y[:, None]
    x_LNC, y_LNC = held_out.positions
    mapped = x_LNC.double() @ fitted.weight.mT + fitted.bias[:, None]
    cosine_L = cosine_similarity(
        (mapped - centre).unflatten(2, (-1, head_dim)),
        (y_LNC - centre).unflatten(2, (-1, head_dim)),
        dim=3,
    ).mean((1, 2))
    explained_L = r_squared(held_out.statistics, fitted.weight, fitted.bias)
    return [Quality(*both) for both in zip(explained_L.tolist(), cosine_L.tolist())]
