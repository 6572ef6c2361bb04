"""Losses between two sets of points of the shared space, the student's and the teachers'.

`mse` and `cosine` are means over pairs of points. `barlow` and `cca` are statistics of a batch:
they look at how the dims vary together over its points, so that a constant point does not satisfy
them. `too_little_variance` and `redundancy` keep learning encoders of the first two from it.

Shapes: N points, Z dims.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

SharedLoss = Callable[[Tensor, Tensor], Tensor]

OFF_DIAGONAL = 5e-3
"""Weight of the redundancy term of Barlow Twins, as in the paper."""
RIDGE = 1e-2
"""Of the covariances of CCA, relative to their mean variance."""
EPSILON = 1e-4


def mse(student_NZ: Tensor, teacher_NZ: Tensor) -> Tensor:
    """The mean squared difference."""
    return (student_NZ - teacher_NZ).square().mean()


def cosine(student_NZ: Tensor, teacher_NZ: Tensor) -> Tensor:
    """1 − the mean cosine similarity."""
    return 1 - cosine_similarity(student_NZ, teacher_NZ, dim=-1).mean()


def barlow(student_NZ: Tensor, teacher_NZ: Tensor) -> Tensor:
    """The distance of the cross-correlation of the dims from the identity.

    Barlow Twins (Zbontar et al., arXiv 2103.03230): Σ (1 − C_ii)² + λ Σ_{i≠j} C_ij². Deviation: it
    is divided by Z, so that its size does not depend on the dims.
    """
    ours, theirs = _standardised(student_NZ), _standardised(teacher_NZ)
    correlation = ours.mT @ theirs / len(ours)
    diagonal = torch.diagonal(correlation)
    redundant = correlation.square().sum() - diagonal.square().sum()
    return ((1 - diagonal).square().sum() + OFF_DIAGONAL * redundant) / student_NZ.shape[1]


def cca(student_NZ: Tensor, teacher_NZ: Tensor) -> Tensor:
    """1 − the mean canonical correlation of the two sets.

    The loss of Deep CCA (Andrew et al., ICML 2013): the nuclear norm of Σ₁^(−1/2) Σ₁₂ Σ₂^(−1/2).
    Cholesky factors whiten in place of square roots, which leaves the norm as it is.
    """
    ours, theirs = (part - part.mean(0) for part in (student_NZ.double(), teacher_NZ.double()))
    count = max(len(ours) - 1, 1)
    whitened = [_whiten(part, count) for part in (ours, theirs)]
    correlations = torch.linalg.svdvals(whitened[0].mT @ whitened[1] / count)
    return (1 - correlations.sum() / student_NZ.shape[1]).to(student_NZ.dtype)


def too_little_variance(points_NZ: Tensor) -> Tensor:
    """The mean over dims of what their standard deviation lacks of 1.

    The variance term of VICReg (Bardes et al., arXiv 2105.04906).
    """
    std_Z = (points_NZ.var(0, correction=0) + EPSILON).sqrt()
    return torch.relu(1 - std_Z).mean()


def redundancy(points_NZ: Tensor) -> Tensor:
    """The squared covariances between different dims, summed and divided by Z.

    The covariance term of VICReg: dims that all vary may still be one and the same.
    """
    centred = points_NZ - points_NZ.mean(0)
    covariance = centred.mT @ centred / max(len(points_NZ) - 1, 1)
    variances = torch.diagonal(covariance)
    return (covariance.square().sum() - variances.square().sum()) / points_NZ.shape[1]


def _standardised(points_NZ: Tensor) -> Tensor:
    centred = points_NZ - points_NZ.mean(0)
    return centred / (centred.square().mean(0) + EPSILON).sqrt()


def _whiten(centred_NZ: Tensor, count: int) -> Tensor:
    covariance = centred_NZ.mT @ centred_NZ / count
    ridge = RIDGE * torch.diagonal(covariance).mean() + 1e-12
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    factor = torch.linalg.cholesky(covariance + ridge * identity)
    return torch.linalg.solve_triangular(factor, centred_NZ.mT, upper=False).mT


SHARED_LOSSES: dict[str, SharedLoss] = {
    "cosine": cosine,
    "mse": mse,
    "barlow": barlow,
    "cca": cca,
}
"""The losses by name."""

CAN_COLLAPSE = ("cosine", "mse")
"""Those that a constant point satisfies."""
