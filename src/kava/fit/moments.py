"""The moments of paired vectors that least squares needs, collected in one pass.

A linear map from x to y, its error and its R² depend on the data through means and second moments
alone. These are collected batch by batch, so that memory depends on the sizes of the vectors and
not on how many there are. Batches are merged by their centred moments (Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979): sums of raw
squares lose the digits of small variances beside large means, which key caches have.

Shapes: N positions, L layers, C_in/C_out coordinates of x and y.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class PairStatistics:
    """Count, means and centred second moments of paired x and y, per layer, in float64.

    Args:
        num_layers: L.
        dim_in: C_in.
        dim_out: C_out.
        device: where the moments are kept; the vectors are expected there.

    Attributes:
        count: [], the number N of positions seen.
        mean_x: [L, C_in].
        mean_y: [L, C_out].
        moment_xx: [L, C_in, C_in], Σ (x − x̄)(x − x̄)ᵀ.
        moment_xy: [L, C_in, C_out], Σ (x − x̄)(y − ȳ)ᵀ.
        moment_y: [L, C_out], Σ (y − ȳ)², coordinate by coordinate.

    Example:
        >>> statistics = PairStatistics(num_layers=2, dim_in=6, dim_out=4)
        >>> statistics.update(torch.randn(100, 2, 6), torch.randn(100, 2, 4))
        >>> statistics.num_positions
        100
    """

    def __init__(
        self,
        num_layers: int,
        dim_in: int,
        dim_out: int,
        device: torch.device | str | None = None,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count = zeros()
        self.mean_x = zeros(num_layers, dim_in)
        self.mean_y = zeros(num_layers, dim_out)
        self.moment_xx = zeros(num_layers, dim_in, dim_in)
        self.moment_xy = zeros(num_layers, dim_in, dim_out)
        self.moment_y = zeros(num_layers, dim_out)

    @property
    def num_positions(self) -> int:
        """N."""
        return int(self.count)

    @torch.no_grad()
    def update(self, x_NLC: Tensor, y_NLC: Tensor) -> None:
        """Add paired vectors, in place.

        Args:
            x_NLC: [N, L, C_in], any floating dtype.
            y_NLC: [N, L, C_out].

        Raises:
            ValueError: vectors that do not fit these statistics or one another.
        """
        for name, part, mean in (("x", x_NLC, self.mean_x), ("y", y_NLC, self.mean_y)):
            if part.ndim != 3 or part.shape[1:] != mean.shape:
                raise ValueError(
                    f"{name} must be [N, {', '.join(map(str, mean.shape))}], got {list(part.shape)}"
                )
        if len(x_NLC) != len(y_NLC):
            raise ValueError(f"{len(x_NLC)} vectors x cannot be paired with {len(y_NLC)} y")
        if not len(x_NLC):
            return
        x_LNC = x_NLC.transpose(0, 1).double()
        y_LNC = y_NLC.transpose(0, 1).double()
        mean_x, mean_y = x_LNC.mean(1), y_LNC.mean(1)
        x_LNC = x_LNC - mean_x[:, None]
        y_LNC = y_LNC - mean_y[:, None]
        self.moment_xx.baddbmm_(x_LNC.mT, x_LNC)
        self.moment_xy.baddbmm_(x_LNC.mT, y_LNC)
        self.moment_y.add_(y_LNC.square().sum(1))
        self._move_means(len(x_NLC), mean_x, mean_y)

    def _move_means(self, count: Tensor | int, mean_x: Tensor, mean_y: Tensor) -> None:
        """Join `count` positions of other means, whose own moments are already added."""
        total = self.count + count
        step_x, step_y = mean_x - self.mean_x, mean_y - self.mean_y
        between = self.count * count / total.clamp(min=1)
        scaled_x = between * step_x[:, :, None]
        self.moment_xx.baddbmm_(scaled_x, step_x[:, None])
        self.moment_xy.baddbmm_(scaled_x, step_y[:, None])
        self.moment_y.add_(between * step_y.square())
        share = count / total.clamp(min=1)
        self.mean_x.add_(share * step_x)
        self.mean_y.add_(share * step_y)
        self.count.copy_(total)

    def __add__(self, other: PairStatistics) -> PairStatistics:
        """The statistics of the pairs of both."""
        if self.moment_xy.shape != other.moment_xy.shape:
            raise ValueError(
                f"statistics of {list(self.moment_xy.shape)} cannot be merged with those of "
                f"{list(other.moment_xy.shape)} (layers, coordinates of x, of y)"
            )
        merged = copy.deepcopy(self)
        merged.moment_xx.add_(other.moment_xx)
        merged.moment_xy.add_(other.moment_xy)
        merged.moment_y.add_(other.moment_y)
        merged._move_means(other.count, other.mean_x, other.mean_y)
        return merged

    def outputs(self, coordinates: slice) -> PairStatistics:
        """The statistics of some coordinates of y with all of x; a view."""
        some = copy.copy(self)
        some.mean_y = self.mean_y[:, coordinates]
        some.moment_xy = self.moment_xy[:, :, coordinates]
        some.moment_y = self.moment_y[:, coordinates]
        return some


def squared_error(statistics: PairStatistics, weight: Tensor, bias: Tensor) -> Tensor:
    """Σ ‖y − W x − b‖² over all positions, per layer: [L].

    Args:
        statistics: of the pairs that the map is judged on.
        weight: W, [L, C_out, C_in].
        bias: b, [L, C_out].
    """
    weight = weight.double()
    offset = statistics.mean_y - (weight @ statistics.mean_x[..., None])[..., 0] - bias.double()
    cross = (weight * statistics.moment_xy.mT).sum((1, 2))
    own = (weight @ statistics.moment_xx * weight).sum((1, 2))
    return (
        statistics.moment_y.sum(1) - 2 * cross + own + statistics.count * offset.square().sum(1)
    ).clamp(min=0)


def r_squared(statistics: PairStatistics, weight: Tensor, bias: Tensor) -> Tensor:
    """The share of y's variance that a linear map explains, per layer: [L].

    R² = 1 − Σ ‖y − W x − b‖² / Σ ‖y − ȳ‖², with ȳ the mean of the same pairs and both sums over
    all coordinates: 1 is exact, 0 no better than the mean, below 0 worse than it.

    Args:
        statistics: of the pairs that the map is judged on.
        weight: W, [L, C_out, C_in].
        bias: b, [L, C_out].

    Raises:
        ValueError: a layer whose y is constant, so that there is nothing to explain.

    Example:
        >>> statistics = PairStatistics(1, 2, 2)
        >>> x = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[2.0, 2.0]]])
        >>> statistics.update(x, 3 * x)
        >>> r_squared(statistics, 3 * torch.eye(2)[None], torch.zeros(1, 2))
        tensor([1.], dtype=torch.float64)
    """
    total = statistics.moment_y.sum(1)
    if not bool((total > 0).all()):
        layer = int((total <= 0).nonzero()[0, 0])
        raise ValueError(
            f"the {statistics.num_positions} positions are constant in layer {layer}, so R² is "
            f"undefined; calibrate on more and other text"
        )
    return 1 - squared_error(statistics, weight, bias) / total
