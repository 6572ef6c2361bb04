"""Two ways to compute one layer's map on a block of samples, and to differentiate it.

`TermsKernel` computes a sum of terms, two products each; `MatrixKernel` one product over all
coordinates of a position. `cheapest_kernel` takes the one with fewer FLOPs for a pass. A sum of
terms that is computed as a matrix has that matrix made for its layer alone, and the gradient of
the matrix is split into those of the terms at the end.

Shapes: H_in/H_out heads, D_in/D_out head dims, C = H·D coordinates of input and output, T
positions, c samples in a block, r terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from kava.align.fast.products import DimMap, DimMapPerHead, HeadMix, Product
from kava.align.fast.weights import Buffers, MapWeights
from kava.align.kronecker import sum_terms

# Cost per FLOP of a term's products relative to one product over all coordinates, measured on a
# CPU: one of their sides is only as long as the number of heads or a head dim.
TERM_COST = 1.4


class LayerKernel(ABC):
    """One layer's map on blocks of samples; `grads` collect the gradients of its weights."""

    def __init__(self, weights: MapWeights, grads: MapWeights, buffers: Buffers) -> None:
        self.weights = weights
        self.grads = grads
        self.buffers = buffers

    def source(self, shape: tuple[int, ...]) -> Tensor:
        """A buffer [c, H_in, T, D_in] in the memory layout that this kernel reads fastest."""
        return self.buffers("source", shape)

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Write the map of x [c, H_in, T, D_in], plus the bias, to out [c, H_out, T, D_out]."""

    @abstractmethod
    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """Add to the weights' gradients; return the gradient of x if needed, [c, H_in, T, D_in]."""

    def finish(self) -> None:  # noqa: B027
        """Complete the gradients after the layer's last block; by default nothing is left to do."""


def heads_go_first(head: Tensor, dim: Tensor) -> bool:
    """Whether to mix heads before mapping dims: always if every head has a dim map of its own."""
    return dim.ndim == 4 or _term_flops(head, dim, True) <= _term_flops(head, dim, False)


def _term_flops(head: Tensor, dim: Tensor, heads_first: bool) -> int:
    (H_out, H_in), (D_out, D_in) = head.shape[-2:], dim.shape[-2:]
    if heads_first:
        return H_out * H_in * D_in + H_out * D_in * D_out
    return H_in * D_in * D_out + H_out * H_in * D_out


class TermsKernel(LayerKernel):
    """Each term mixes heads and maps dims, in the cheaper order, and adds to one output."""

    def __init__(self, weights: MapWeights, grads: MapWeights, buffers: Buffers) -> None:
        super().__init__(weights, grads, buffers)
        head, dim = (part.to(buffers.like.dtype) for part in weights.terms)
        maps = DimMapPerHead if dim.ndim == 4 else DimMap
        self.terms: list[tuple[Product, Product]] = [
            (HeadMix(M), maps(P)) for M, P in zip(head.unbind(), dim.unbind())
        ]
        if not heads_go_first(head, dim):
            self.terms = [(second, first) for first, second in self.terms]

    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See `LayerKernel`."""
        if bias is not None:
            out.copy_(bias[:, None].expand_as(out))
        for term, (first, second) in enumerate(self.terms):
            middle = self.buffers("middle", first.shape(x.shape))
            first.apply(x, middle, add=False)
            second.apply(middle, out, add=term > 0 or bias is not None)

    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """See `LayerKernel`."""
        grad_x = self.buffers("grad_source", x.shape) if "x" in needs else None
        for term, (first, second) in enumerate(self.terms):
            shape = first.shape(x.shape)
            if second.name in needs:
                middle = self.buffers("middle", shape)
                first.apply(x, middle, add=False)
                getattr(self.grads, second.name)[term].add_(second.weight_grad(middle, grad))
            if first.name not in needs and grad_x is None:
                continue
            grad_middle = self.buffers("grad_middle", shape)
            second.input_grad(grad, grad_middle, add=False)
            if first.name in needs:
                getattr(self.grads, first.name)[term].add_(first.weight_grad(x, grad_middle))
            if grad_x is not None:
                first.input_grad(grad_middle, grad_x, add=term > 0)
        return grad_x


class MatrixKernel(LayerKernel):
    """One product over all coordinates of a position; terms are summed to a matrix first."""

    def __init__(self, weights: MapWeights, grads: MapWeights, buffers: Buffers) -> None:
        super().__init__(weights, grads, buffers)
        self.made: Tensor | None = None
        self.grad_matrix = grads.full

    @property
    def matrix(self) -> Tensor:
        """[C_out, C_in], made at first use: a pass for gradients of weights alone needs none."""
        if self.made is None:
            dtype = self.buffers.like.dtype
            matrix = self.weights.full
            if matrix is None:
                precise = torch.promote_types(dtype, self.weights.terms[0].dtype)
                matrix = sum_terms(*(part[None].to(precise) for part in self.weights.terms))[0]
            self.made = matrix.to(dtype)
        return self.made

    def source(self, shape: tuple[int, ...]) -> Tensor:
        """See `LayerKernel`; in memory positions come before heads."""
        c, H, T, D = shape
        return self.buffers("source", (c, T, H, D)).transpose(1, 2)

    def _rows(self, x: Tensor, name: str) -> Tensor:
        """[c, H, T, D] -> [c·T, C]; a buffer from `source` is not copied."""
        rows = x.transpose(1, 2)
        if not rows.is_contiguous():
            rows = self.buffers(name, tuple(rows.shape)).copy_(rows)
        return rows.flatten(2).flatten(0, 1)

    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See `LayerKernel`."""
        rows = self._rows(x, "rows")
        c, H_out, T, D_out = out.shape
        mapped = self.buffers("mapped", (c, T, H_out, D_out))
        torch.mm(rows, self.matrix.mT, out=mapped.view(len(rows), -1))
        if bias is None:
            out.copy_(mapped.transpose(1, 2))
        else:
            torch.add(mapped.transpose(1, 2), bias[:, None], out=out)

    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """See `LayerKernel`."""
        grad_rows = self._rows(grad, "grad_rows")
        if needs & {"head", "dim", "full"}:
            rows = self._rows(x, "rows")
            wide = torch.promote_types(x.dtype, torch.float32)
            if self.grad_matrix is None:
                self.grad_matrix = (grad_rows.mT @ rows).to(wide)
            elif wide == x.dtype:
                self.grad_matrix.addmm_(grad_rows.mT, rows)
            else:
                self.grad_matrix.add_(grad_rows.mT @ rows)
        if "x" not in needs:
            return None
        c, H_in, T, D_in = x.shape
        grad_x = self.buffers("grad_source", (c, T, H_in, D_in))
        torch.mm(grad_rows, self.matrix, out=grad_x.view(len(grad_rows), -1))
        return grad_x.transpose(1, 2)

    def finish(self) -> None:
        """Split the matrix's gradient into those of the terms."""
        if self.weights.full is None and self.grad_matrix is not None:
            grads = _split(self.grad_matrix, *self.weights.terms)
            for total, grad in zip((self.grads.head, self.grads.dim), grads):
                if total is not None:
                    total.add_(grad)
        self.made = self.grad_matrix = None  # frees memory for the next layer's


def _split(matrix: Tensor, head: Tensor, dim: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the head mixes and dim maps from the gradient of their sum.

    With rows for pairs of heads and columns for pairs of dims, the sum of terms is a product of
    two matrices; one such product per output head if heads have dim maps of their own.
    """
    H_out, H_in, D_out, D_in = *head.shape[-2:], *dim.shape[-2:]
    groups = H_out if dim.ndim == 4 else 1
    heads = head.to(matrix.dtype).reshape(len(head), groups, -1)
    dims = dim.to(matrix.dtype).reshape(len(dim), groups, -1)
    pairs = matrix.view(H_out, D_out, H_in, D_in).transpose(1, 2)
    pairs = pairs.reshape(groups, -1, D_out * D_in)
    of_head = torch.bmm(pairs, dims.permute(1, 2, 0)).permute(2, 0, 1)
    of_dim = torch.bmm(heads.transpose(0, 1), pairs).transpose(0, 1)
    return of_head.reshape(head.shape), of_dim.reshape(dim.shape)


def cheapest_kernel(
    weights: MapWeights, num_positions: int, needs: AbstractSet[str] | None
) -> type[LayerKernel]:
    """The kernel that needs fewer FLOPs for a layer.

    Args:
        weights: the weights of all layers.
        num_positions: B·T.
        needs: the gradients of a backward pass; None for the forward pass.
    """
    if weights.full is not None:
        return MatrixKernel
    head, dim = weights.terms
    (H_out, H_in), (D_out, D_in) = head.shape[-2:], dim.shape[-2:]
    rank = head.shape[1]
    of_weights = needs is not None and bool(needs & {"head", "dim"})
    of_input = needs is None or "x" in needs
    # For gradients of weights, terms repeat their first product and need two more; a matrix
    # needs one product.
    passes = 2 * of_weights + of_input
    term = _term_flops(head, dim, heads_go_first(head[0], dim[0]))
    terms = TERM_COST * num_positions * rank * term * passes
    size = H_out * D_out * H_in * D_in
    matrix = size * (num_positions * (of_weights + of_input) + rank * (2 * of_weights + of_input))
    return MatrixKernel if matrix < terms else TermsKernel
