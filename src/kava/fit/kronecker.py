"""Structured maps fitted to second moments: a sum of head-mix ⊗ dim-map terms.

Among all maps of the form

    W[(h, d), (g, e)] = Σ_r M_r[h, g] · P_r[d, e]       (one dim map P_r per term for all heads)
    W[(h, d), (g, e)] = Σ_r M_r[h, g] · P_r[h, d, e]    (a dim map for each output head)

the one is sought that minimises the ridge objective of `least_squares`,

    f(W) = tr(W A Wᵀ) − 2 tr(W B),

which is quadratic in M for fixed P and the other way round: alternating least squares. Only A and
B are needed, never the data. Each half step is exact, so f never rises. The terms of one factor
are orthonormalised before the other is solved for (the sum stays as it is); then P ↦ W is an
isometry, and the system for P is as well conditioned as A.

A rearrangement of W to [(h, g), (d, e)] makes such a sum a matrix of rank r (Van Loan and
Pitsianis, "Approximation with Kronecker products", 1993). Two starts are tried, the truncated SVD
of the rearranged ridge solution as it stands, and in the metric of the data (A taken as the
Kronecker product of its partial traces); each group goes on from its better one.

Shapes: L layers, C_in = H·D and C_out = H_out·D_out coordinates, heads outermost; r terms; G
groups of K output heads: one group of all heads that share their dim maps, or one head a group;
h/g output/input heads, d/e output/input coordinates of a head.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from kava.align.geometry import HeadDims
from kava.align.kronecker import sum_terms
from kava.fit.least_squares import RidgeSystem, fit_bias, ridge_system
from kava.fit.moments import PairStatistics

SYSTEM_BYTES = 256 << 20
"""Layers are solved together as long as their normal equations fit into this many bytes."""

TRIAL_ROUNDS = 10
"""The number of rounds of each start before the better one is chosen."""


class KroneckerFit(NamedTuple):
    """A structured map of every layer."""

    head_mix: Tensor
    """[L, r, H_out, H_in]."""
    dim_map: Tensor
    """[L, r, D_out, D_in], or [L, r, H_out, D_out, D_in] for a dim map per output head."""
    bias: Tensor
    """[L, C_out]."""

    def dense(self) -> Tensor:
        """The same map as a matrix [L, C_out, C_in]."""
        return sum_terms(self.head_mix, self.dim_map)


class _Factors(NamedTuple):
    """The terms of every group: M [L, G, r, K, g] and P [L, G, r, d, e]."""

    mix: Tensor
    dims: Tensor


class _Progress(NamedTuple):
    """Factors, and f at them for every layer and group, [L, G]."""

    factors: _Factors
    objective: Tensor


class _System:
    """A, B and the ridge solution W of some layers, rearranged for the half steps."""

    def __init__(self, ridge: RidgeSystem, shape: HeadDims, per_head: bool) -> None:
        heads, dim = shape.num_heads_in, shape.head_dim_in
        num_groups = shape.num_heads_out if per_head else 1
        groups = {"G": num_groups, "d": shape.head_dim_out, "g": heads, "e": dim}
        pattern = "l (g e) (G K d) -> l G (K g) (d e)"
        self.A_heads_dims = rearrange(ridge.A, "l (g e) (i j) -> l 1 (g i) (e j)", g=heads, i=heads)
        self.B_mixes_dims = rearrange(ridge.B, pattern, **groups)
        self.W_mixes_dims = rearrange(ridge.solve(), pattern, **groups)
        self.variance = ridge.variance.unflatten(1, (num_groups, -1)).sum(2)
        self.num_mixed_heads = heads
        self.mapped_dims = (shape.head_dim_out, dim)
        # A as a Kronecker product of its partial traces, each factor L Lᵀ
        by_heads = ridge.A.unflatten(2, (heads, dim)).unflatten(1, (heads, dim))
        self.heads_root = torch.linalg.cholesky(torch.einsum("lgehe->lgh", by_heads))
        self.dims_root = torch.linalg.cholesky(torch.einsum("lgegf->lef", by_heads))

    def start(self, rank: int) -> _Factors:
        """The rearranged ridge solution, truncated to `rank` terms."""
        return self._truncated(self.W_mixes_dims, rank)

    def start_in_data_metric(self, rank: int) -> _Factors:
        """The same, truncated where the error is about that on the data."""

        heads_root, dims_root = self.heads_root[:, None, None], self.dims_root[:, None, None]
        by_dims = self.W_mixes_dims.unflatten(3, self.mapped_dims) @ dims_root
        by_heads = by_dims.flatten(3).mT.unflatten(3, (-1, self.num_mixed_heads)) @ heads_root
        mix, dims = self._truncated(by_heads.flatten(3).mT, rank)
        return _Factors(_times_inverse(mix, heads_root), _times_inverse(dims, dims_root))

    def _truncated(self, W_mixes_dims: Tensor, rank: int) -> _Factors:
        left, values, right = torch.linalg.svd(W_mixes_dims, full_matrices=False)
        mix = (left[..., :rank] * values[..., None, :rank]).mT
        return _Factors(
            mix.unflatten(3, (-1, self.num_mixed_heads)),
            right[..., :rank, :].unflatten(3, self.mapped_dims),
        )

    def round(self, factors: _Factors) -> tuple[_Factors, Tensor]:
        """Solve for the dim maps, then for the head mixes; f after it, [L, G]."""
        A, B = self.A_heads_dims, self.B_mixes_dims
        dims, _ = _half_step(_orthonormal(factors.mix), A, B)
        dims = _orthonormal(dims)
        mix, objective = _half_step(dims, A.mT, B.mT)
        return _Factors(mix, dims), objective


def _times_inverse(terms: Tensor, root: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(root, terms, upper=False, left=False)


def _half_step(fixed: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The best second factor for a first one [L, G, r, n, a] that is orthonormal over (n, a).

    Args:
        fixed: the first factor.
        A: [L, 1, a·a, b·b].
        B: [L, G, n·a, m·b].

    Returns:
        The second factor [L, G, r, m, b], and f [L, G].
    """
    r, b = fixed.shape[2], round(A.shape[3] ** 0.5)
    outer = torch.einsum("LGrna,LGsnc->LGrsac", fixed, fixed).flatten(4).flatten(2, 3)
    gram = rearrange(outer @ A, "L G (r s) (b c) -> L G (r b) (s c)", r=r, b=b)
    right = rearrange(fixed.flatten(3) @ B, "L G r (m b) -> L G (r b) m", b=b)
    solution = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    objective = -(solution * right).sum((2, 3))
    return rearrange(solution, "L G (r b) m -> L G r m b", r=r), objective


def _orthonormal(terms: Tensor) -> Tensor:
    """Terms [L, G, r, n, a] with the same span that are orthonormal over (n, a)."""
    basis, _ = torch.linalg.qr(terms.flatten(3).mT)
    return basis.mT.unflatten(3, terms.shape[3:])


def _better(one: _Progress, other: _Progress) -> _Progress:
    """Group by group, the factors with the lower f."""
    wins = (other.objective < one.objective)[..., None, None, None]
    mix, dims = (torch.where(wins, b, a) for a, b in zip(one.factors, other.factors))
    return _Progress(_Factors(mix, dims), torch.minimum(one.objective, other.objective))


def _descend(system: _System, progress: _Progress, num_rounds: int, tolerance: float) -> _Progress:
    for _ in range(num_rounds):
        before = progress.objective
        progress = _Progress(*system.round(progress.factors))
        if bool((before - progress.objective <= tolerance * system.variance).all()):
            break
    return progress


@torch.no_grad()
def fit_kronecker(
    statistics: PairStatistics,
    shape: HeadDims,
    rank: int,
    per_head: bool = False,
    ridge: float | Tensor = 1e-4,
    *,
    tolerance: float = 1e-5,
    max_rounds: int = 500,
) -> KroneckerFit:
    """Fit a sum of `rank` head-mix ⊗ dim-map terms in every layer.

    At full rank the result is the ridge solution.

    Args:
        statistics: of the pairs, heads outermost in x and y.
        shape: the heads and head dims of x and y.
        rank: r, from 1 to `shape.full_rank(per_head)`.
        per_head: a dim map for each output head, or one per term for all of them.
        ridge: λ > 0 relative to the mean eigenvalue of the covariance of x; a number, or [L].
        tolerance: stop when a round explains less than this share more of the variance of y.
        max_rounds: the largest number of rounds.

    Raises:
        ValueError: statistics of another shape, a rank out of reach, or what `fit_ridge` refuses.

    Example:
        >>> statistics = PairStatistics(1, 6, 4)
        >>> statistics.update(torch.randn(100, 1, 6), torch.randn(100, 1, 4))
        >>> fit_kronecker(statistics, HeadDims(3, 2, 2, 2), rank=2).head_mix.shape
        torch.Size([1, 2, 2, 3])
    """
    dims = statistics.moment_xy.shape[1:]
    if dims != (shape.dim_in, shape.dim_out):
        raise ValueError(
            f"statistics of {dims[0]} → {dims[1]} coordinates do not fit {shape.num_heads_in} "
            f"heads of {shape.head_dim_in} → {shape.num_heads_out} heads of {shape.head_dim_out}"
        )
    shape.check_rank(rank, per_head)
    full = shape.full_rank(per_head)
    systems = ridge_system(statistics, ridge)
    widest = rank * max(shape.num_heads_in, shape.head_dim_in)
    num_groups = shape.num_heads_out if per_head else 1
    together = max(1, SYSTEM_BYTES // (8 * num_groups * widest**2))
    fitted = []
    for start in range(0, len(systems.A), together):
        system = _System(systems.layers(slice(start, start + together)), shape, per_head)
        if rank == full:
            fitted.append(system.start(rank))
            continue
        tried = (
            _descend(system, _Progress(*system.round(factors)), TRIAL_ROUNDS, tolerance)
            for factors in (system.start(rank), system.start_in_data_metric(rank))
        )
        best = reduce(_better, tried)
        fitted.append(_descend(system, best, max_rounds, tolerance).factors)
    mix, maps = (torch.cat(parts) for parts in zip(*fitted))
    return _to_fit(statistics, _Factors(mix, maps), per_head)


def _to_fit(statistics: PairStatistics, factors: _Factors, per_head: bool) -> KroneckerFit:
    """The groups' terms as those of a layer, with the bias."""
    mix, dims = factors
    fit = KroneckerFit(
        rearrange(mix, "l G r K g -> l r (G K) g"),
        rearrange(dims, "l G r d e -> l r G d e") if per_head else dims[:, 0],
        statistics.mean_y,
    )
    return fit._replace(bias=fit_bias(statistics, fit.dense()))
