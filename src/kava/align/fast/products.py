"""The matrix products of one block: mix its heads, or map the head dim of every head.

Shapes: c samples in a block, H_in/H_out heads, T positions, D_in/D_out head dims.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HeadMix:
    """[c, H_in, T, D] -> [c, H_out, T, D] by a weight [H_out, H_in]."""

    name = "head"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the output for an input of shape `source`."""
        return (source[0], self.weight.shape[0], *source[2:])

    def apply(self, x: Tensor, out: Tensor, add: bool) -> None:
        """Write or add the map of x to `out`."""
        weight = self.weight.expand(len(x), -1, -1)
        out.view(*out.shape[:2], -1).baddbmm_(weight, x.flatten(2), beta=int(add))

    def input_grad(self, grad: Tensor, out: Tensor, add: bool) -> None:
        """Write or add the input's gradient to `out`."""
        weight = self.weight.mT.expand(len(grad), -1, -1)
        out.view(*out.shape[:2], -1).baddbmm_(weight, grad.flatten(2), beta=int(add))

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        """The weight's gradient, summed over the block."""
        return torch.bmm(grad.flatten(2), x.flatten(2).mT).sum(0)


class DimMap:
    """[c, H, T, D_in] -> [c, H, T, D_out] by a weight [D_out, D_in] for all heads."""

    name = "dim"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the output for an input of shape `source`."""
        return (*source[:-1], self.weight.shape[-2])

    def apply(self, x: Tensor, out: Tensor, add: bool) -> None:
        """Write or add the map of x to `out`."""
        self._product(x, self.weight.mT, out, add)

    def input_grad(self, grad: Tensor, out: Tensor, add: bool) -> None:
        """Write or add the input's gradient to `out`."""
        self._product(grad, self.weight, out, add)

    def _product(self, x: Tensor, weight: Tensor, out: Tensor, add: bool) -> None:
        rows = out.view(len(x), -1, out.shape[-1])
        rows.baddbmm_(x.flatten(1, 2), weight.expand(len(x), -1, -1), beta=int(add))

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        """The weight's gradient, summed over the block."""
        return torch.bmm(grad.flatten(1, 2).mT, x.flatten(1, 2)).sum(0)


class DimMapPerHead(DimMap):
    """[c, H, T, D_in] -> [c, H, T, D_out] by a weight [H, D_out, D_in]."""

    def _product(self, x: Tensor, weight: Tensor, out: Tensor, add: bool) -> None:
        if len(x) == 1:
            out[0].baddbmm_(x[0], weight, beta=int(add))
        elif add:
            out.add_(torch.matmul(x, weight))
        else:
            torch.matmul(x, weight, out=out)

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        """The weight's gradient, summed over the block."""
        return torch.matmul(grad.mT, x).sum(0)


Product = HeadMix | DimMap
