"""Linear centred kernel alignment (CKA): the similarity of two layers in any basis and scale.

CKA (Kornblith et al. 2019, arXiv 1905.00414) compares the Gram matrices K = X Xᵀ and L = Y Yᵀ of
two representations of the same positions: CKA = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)). With
few positions and many features the plain estimator is large for unrelated data too; the debiased
one puts the unbiased HSIC of Song et al. (2012, eq. 5) in its place, as in Nguyen et al. (2021,
arXiv 2010.15327), and is 0 in expectation for independent data.

For linear kernels every term of it is a sum over positions of products of features. With n centred
rows, a = |x|² and b = |y|² of each row,

    HSIC = (|XᵀY|² − Σab + ΣaΣb / ((n−1)(n−2)) − 2 Σab / (n−2)) / (n(n−3)).

Shapes: N positions, C_x/C_y features.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_ROWS, MIN_ROWS_DEBIASED = 2, 4


def linear_cka(
    x: Tensor, y: Tensor, debiased: bool = False, *, mask: Tensor | None = None
) -> Tensor:
    """Linear CKA of two representations of the same positions.

    It does not change under rotation or scaling of the features of either side, nor when a
    constant is added to all positions: what a comparison of two models needs. Differentiable.

    Args:
        x: [..., N, C_x]; one CKA for every entry of the leading axes.
        y: [..., N, C_y], the same leading axes.
        debiased: estimate HSIC without bias (Song et al. 2012): near 0 for independent data,
            slightly below 0 at times, where the plain estimate is above 0 and grows with C/N.
        mask: [..., N] or [N] bool, False at positions to leave out, which may hold anything.

    Returns:
        [...], in float32 or the wider dtype of the inputs: 0 (nothing in common) to 1. A side
        that is the same at all positions has nothing in common with any other: 0.

    Raises:
        ValueError: shapes that do not fit, or fewer than 2 valid positions (4 if debiased).

    Example:
        >>> x = torch.randn(100, 8)
        >>> round(linear_cka(x, -3 * x.flip(-1) + 1).item(), 5)
        1.0
    """
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise ValueError(
            f"x {list(x.shape)} and y {list(y.shape)} must be [..., N, features] with the same "
            f"leading axes and positions"
        )
    rows = x.new_ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask.bool()
    rows = rows.expand(x.shape[:-1])
    num_rows = rows.sum(-1)
    check_rows(int(num_rows.min()), MIN_ROWS_DEBIASED if debiased else MIN_ROWS)
    x, y = _standardised(x, rows), _standardised(y, rows)

    def hsic(x: Tensor, y: Tensor) -> Tensor:
        overlap = _squared_product(x, y)
        if not debiased:
            return overlap  # times 1 / (n − 1)², which cancels
        a, b = x.square().sum(-1), y.square().sum(-1)
        return unbiased_hsic(num_rows, overlap, a.sum(-1), b.sum(-1), (a * b).sum(-1))

    return normalised(hsic(x, y), hsic(x, x), hsic(y, y))


def check_rows(found: int, needed: int) -> None:
    """Refuse fewer positions than an estimate needs."""
    if found < needed:
        raise ValueError(
            f"CKA needs at least {needed} valid positions, got {found}; compare more samples"
        )


def _standardised(x: Tensor, rows: Tensor) -> Tensor:
    """Centred, 0 outside `rows`, and of mean square 1, so that no square over- or underflows.

    What remains of a constant after centring is rounding error, and is set to 0. CKA does not
    depend on the scale, so that no gradient needs to flow through it.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~rows[..., None], 0)
    num_rows = rows.sum(-1)[..., None, None]
    centred = (x - x.sum(-2, keepdim=True) / num_rows).masked_fill(~rows[..., None], 0)
    largest = x.detach().abs().amax((-2, -1), keepdim=True)
    spread = centred.detach().abs().amax((-2, -1), keepdim=True)
    varies = ~(spread <= 16 * torch.finfo(x.dtype).eps * largest)  # NaN stays NaN
    return torch.where(varies, centred / torch.where(varies, spread, 1), 0)


def _squared_product(x: Tensor, y: Tensor) -> Tensor:
    """|XᵀY|², over features or over positions, whichever is less work."""
    num_rows, (width_x, width_y) = x.shape[-2], (x.shape[-1], y.shape[-1])
    if num_rows * (width_x + width_y) < width_x * width_y:
        return ((x @ x.mT) * (y @ y.mT)).sum((-2, -1))
    return (x.mT @ y).square().sum((-2, -1))


def unbiased_hsic(
    num_rows: Tensor | int, overlap: Tensor, sum_a: Tensor, sum_b: Tensor, sum_ab: Tensor
) -> Tensor:
    """HSIC of centred rows without bias, Song et al. (2012, eq. 5); see the top of the file.

    Args:
        num_rows: n.
        overlap: |XᵀY|².
        sum_a: Σ |x|².
        sum_b: Σ |y|².
        sum_ab: Σ |x|²|y|².
    """
    n = num_rows
    value = overlap - sum_ab + sum_a * sum_b / ((n - 1) * (n - 2)) - 2 * sum_ab / (n - 2)
    return value / (n * (n - 3))


def normalised(cross: Tensor, own_x: Tensor, own_y: Tensor) -> Tensor:
    """HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)); 0 where a side never varies, NaN of NaN."""
    positive = ~((own_x <= 0) | (own_y <= 0))
    scale = torch.where(positive, own_x, 1).sqrt() * torch.where(positive, own_y, 1).sqrt()
    return torch.where(positive, cross / scale, 0)
