"""The same weights for every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kava.fuse.base import Fusion, Offers, register_fusion

TOLERANCE = 1e-3
"""Given weights may miss a sum of 1 by this much, as 0.33 0.33 0.33 does not."""


def check_weights(weights: Sequence[float], num_teachers: int) -> tuple[float, ...]:
    """Weights of teachers, checked.

    Raises:
        ValueError: another number of weights than teachers; a weight below 0 or not finite; a sum
            that is not 1.

    Example:
        >>> check_weights([0.7, 0.3], 2)
        (0.7, 0.3)
    """
    shown = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != num_teachers:
        raise ValueError(
            f"weights {shown} are {len(weights)}, and there are {num_teachers} teachers: give one "
            f"for each"
        )
    if any(not 0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"weights {shown} must be finite and 0 or more")
    if abs(sum(weights) - 1) > TOLERANCE:
        raise ValueError(f"weights {shown} sum to {sum(weights):g}, and must sum to 1")
    return tuple(float(weight) for weight in weights)


@register_fusion
@dataclass(frozen=True, kw_only=True)
class FixedFusion(Fusion):
    """Given weights, or equal ones.

    Args:
        weights: one for each teacher, summing to 1; None: equal.

    Raises:
        ValueError: weights that do not sum to 1, or another number of them than of teachers.
    """

    name = "fixed"
    weights: Sequence[float] | None = None

    def _weights(self, num_teachers: int) -> tuple[float, ...]:
        if self.weights is None:
            return (1 / num_teachers,) * num_teachers
        return check_weights(self.weights, num_teachers)

    def weigh(self, offers: Offers) -> Tensor:
        """The same for all samples."""
        N = offers.present_BN.shape[1]
        return torch.tensor(self._weights(N), device=offers.present_BN.device).expand(
            len(offers.present_BN), 1, 1, N
        )

    def choose(self, offers: Offers) -> Tensor | None:
        """The teacher whose weight is 1, if there is one."""
        B, N = offers.present_BN.shape
        weights = self._weights(N)
        if weights.count(0.0) < N - 1:
            return None
        chosen = max(range(N), key=weights.__getitem__)
        return torch.full((B,), chosen, device=offers.present_BN.device)
