"""Linear maps between caches in closed form: ridge regression with a bias, from statistics alone.

A map W of all coordinates of x to all of y minimises, up to a constant,

    f(W) = tr(W A Wᵀ) − 2 tr(W B),    A = Σ (x − x̄)(x − x̄)ᵀ / s + λI,  B = Σ (x − x̄)(y − ȳ)ᵀ / s

with s the mean eigenvalue of Σ (x − x̄)(x − x̄)ᵀ, so that λ means the same for large and small
vectors. The bias b = ȳ − W x̄ is not penalised.

Shapes: L layers, C_in/C_out coordinates of x and y.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kava.fit.moments import PairStatistics

SMALLEST_PIVOT = 1e-12
"""Of A, whose mean eigenvalue is 1; a smaller one is the rounding of a zero."""


class RidgeSystem(NamedTuple):
    """What the ridge objective is made of; f falls by as much as Σ ‖y − W x − b‖² / s does."""

    A: Tensor
    """[L, C_in, C_in]."""
    B: Tensor
    """[L, C_in, C_out]."""
    variance: Tensor
    """[L, C_out]: Σ (y − ȳ)² / s, what a map could explain at most."""

    def solve(self) -> Tensor:
        """The minimum of f, transposed: A⁻¹ B, [L, C_in, C_out].

        Raises:
            ValueError: inputs so dependent on each other that A has no inverse.
        """
        factor, info = torch.linalg.cholesky_ex(self.A)
        pivots = factor.diagonal(dim1=1, dim2=2).square().amin(1)
        failed = (info > 0) | (pivots < SMALLEST_PIVOT)
        if bool(failed.any()):
            raise ValueError(
                f"the inputs of layer {int(failed.nonzero()[0, 0])} depend linearly on each "
                f"other, and the ridge is too small to tell them apart; use a larger one, such "
                f"as 1e-4"
            )
        return torch.cholesky_solve(self.B, factor)

    def layers(self, some: slice) -> RidgeSystem:
        """The systems of some layers."""
        return RidgeSystem(*(part[some] for part in self))


def ridge_system(statistics: PairStatistics, ridge: float | Tensor) -> RidgeSystem:
    """The objective of ridge regression.

    Args:
        statistics: of the pairs.
        ridge: λ, a number or [L].

    Raises:
        ValueError: a layer whose inputs do not vary.
    """
    ridge_L = torch.as_tensor(ridge, dtype=torch.float64, device=statistics.mean_x.device)
    scale_L = statistics.moment_xx.diagonal(dim1=1, dim2=2).mean(1)
    if not bool((scale_L > 0).all()):
        layer = int((scale_L <= 0).nonzero()[0, 0])
        raise ValueError(
            f"the {statistics.num_positions} inputs are constant in layer {layer}, so no map can "
            f"be fitted; calibrate on more and other text"
        )
    A = statistics.moment_xx / scale_L[:, None, None]
    A.diagonal(dim1=1, dim2=2).add_(ridge_L.expand(len(A))[:, None])
    return RidgeSystem(
        A, statistics.moment_xy / scale_L[:, None, None], statistics.moment_y / scale_L[:, None]
    )


def fit_bias(statistics: PairStatistics, weight: Tensor) -> Tensor:
    """The bias [L, C_out] with which a map is right on average."""
    return statistics.mean_y - (weight @ statistics.mean_x[..., None])[..., 0]


def fit_ridge(statistics: PairStatistics, ridge: float | Tensor) -> tuple[Tensor, Tensor]:
    """Fit the full map of every layer by ridge regression with a bias.

    Args:
        statistics: of the pairs.
        ridge: λ ≥ 0 relative to the mean eigenvalue of the covariance of x; a number, or [L].

    Returns:
        The weight [L, C_out, C_in] and the bias [L, C_out], in float64.

    Raises:
        ValueError: inputs without variance, or so dependent on each other that this ridge does
            not tell them apart.

    Example:
        >>> statistics = PairStatistics(1, 6, 4)
        >>> statistics.update(torch.randn(100, 1, 6), torch.randn(100, 1, 4))
        >>> weight, bias = fit_ridge(statistics, ridge=1e-4)
        >>> weight.shape
        torch.Size([1, 4, 6])
    """
    weight = ridge_system(statistics, ridge).solve().mT
    return weight, fit_bias(statistics, weight)


def fit_scale(statistics: PairStatistics, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The best scalar for every output of a given map, and the bias that goes with it.

    Args:
        statistics: of the pairs.
        weight: [L, C_out, C_in].

    Returns:
        The scaled weight [L, C_out, C_in] and the bias [L, C_out].
    """
    weight = weight.double()
    covariance = (weight * statistics.moment_xy.mT).sum(2)
    variance = (weight @ statistics.moment_xx * weight).sum(2)
    scale = torch.where(variance > 0, covariance / variance, 0.0)
    scaled = scale[..., None] * weight
    return scaled, fit_bias(statistics, scaled)
