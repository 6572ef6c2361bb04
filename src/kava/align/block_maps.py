"""One layer's map of heads and head dims, applied to a block of samples and differentiated.

A map is carried out as a sum of terms, two products each, or as one matrix over all heads of a
position. Whichever needs fewer FLOPs in a pass is taken; a sum that is taken as a matrix has it
made for its layer alone, and the matrix's gradient is split into those of the terms at the end.

Shapes: H_in/H_out heads, D_in/D_out head dims, C = H·D coordinates of input and output, T
positions, c samples in a block, r terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import torch
from torch import Tensor

# Of a term's products against one over all coordinates, per FLOP, measured on a CPU: one side of
# theirs is as short as the number of heads or a head dim.
TERM_COST = 1.4


class Scratch:
    """Buffers that the blocks take turns in; the first block is the largest."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The buffer of a name, cut to the block's samples."""
        if name not in self.buffers:
            self.buffers[name] = self.like.new_empty(shape)
        return self.buffers[name][: shape[0]]


class Weights(NamedTuple):
    """A map's weights: head mixes and dim maps of terms, or a matrix, one for each layer or one.

    Gradients have the same form.
    """

    head: Tensor | None
    """[L, r, H_out, H_in]."""
    dim: Tensor | None
    """[L, r, D_out, D_in], or [L, r, H_out, D_out, D_in] for a dim map per head."""
    full: Tensor | None
    """[L, C_out, C_in]."""

    @property
    def terms(self) -> tuple[Tensor, Tensor]:
        """Head mixes and dim maps, where the map is a sum of terms."""
        assert self.head is not None
        assert self.dim is not None
        return self.head, self.dim

    @property
    def num_rows(self) -> int:
        """C_out."""
        if self.full is not None:
            return self.full.shape[1]
        head, dim = self.terms
        return head.shape[2] * dim.shape[-2]

    def at(self, layer: int) -> Weights:
        """Those of one layer, [r, …] or [C_out, C_in]; a single one serves all."""
        return Weights(
            *(part if part is None else part[layer if len(part) > 1 else 0] for part in self)
        )


def sum_terms(head_mix: Tensor, dim_map: Tensor) -> Tensor:
    """The matrices [L, C_out, C_in] of sums of terms, coordinates in the order of heads.

    Args:
        head_mix: [L, r, H_out, H_in].
        dim_map: [L, r, D_out, D_in], or [L, r, H_out, D_out, D_in].
    """
    heads = "h" if dim_map.ndim == 5 else ""
    maps = torch.einsum(f"lrhg,lr{heads}pd->lhpgd", head_mix, dim_map)
    return maps.flatten(3, 4).flatten(1, 2)


class BlockMap(ABC):
    """A layer's map; `grads` take the sums of the weights' gradients."""

    def __init__(self, weights: Weights, grads: Weights, scratch: Scratch) -> None:
        self.weights = weights
        self.grads = grads
        self.scratch = scratch

    def source(self, shape: tuple[int, ...]) -> Tensor:
        """A buffer [c, H_in, T, D_in] in the layout that the map reads best."""
        return self.scratch("source", shape)

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Write the map of x [c, H_in, T, D_in], plus the bias, to out [c, H_out, T, D_out]."""

    @abstractmethod
    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """Add the weights' gradients; return that of x, [c, H_in, T, D_in], where it is needed."""

    def finish(self) -> None:  # noqa: B027
        """Called after the layer's last block; does nothing where there is nothing left to do."""


class HeadMix:
    """[c, H_in, T, D] -> [c, H_out, T, D] by a weight [H_out, H_in]."""

    name = "head"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """Of the output."""
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
        """Of the output."""
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


Stage = HeadMix | DimMap


def heads_go_first(head: Tensor, dim: Tensor) -> bool:
    """Whether heads are mixed before dims are mapped: always, where every head has its dim map."""
    return dim.ndim == 4 or _term_flops(head, dim, True) <= _term_flops(head, dim, False)


def _term_flops(head: Tensor, dim: Tensor, heads_first: bool) -> int:
    (H_out, H_in), (D_out, D_in) = head.shape[-2:], dim.shape[-2:]
    if heads_first:
        return H_out * H_in * D_in + H_out * D_in * D_out
    return H_in * D_in * D_out + H_out * H_in * D_out


class SumOfTerms(BlockMap):
    """Each term mixes heads and maps dims, in the cheaper order, onto one output."""

    def __init__(self, weights: Weights, grads: Weights, scratch: Scratch) -> None:
        super().__init__(weights, grads, scratch)
        head, dim = (part.to(scratch.like.dtype) for part in weights.terms)
        maps = DimMapPerHead if dim.ndim == 4 else DimMap
        self.terms: list[tuple[Stage, Stage]] = [
            (HeadMix(M), maps(P)) for M, P in zip(head.unbind(), dim.unbind())
        ]
        if not heads_go_first(head, dim):
            self.terms = [(second, first) for first, second in self.terms]

    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See `BlockMap`."""
        if bias is not None:
            out.copy_(bias[:, None].expand_as(out))
        for term, (first, second) in enumerate(self.terms):
            middle = self.scratch("middle", first.shape(x.shape))
            first.apply(x, middle, add=False)
            second.apply(middle, out, add=term > 0 or bias is not None)

    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """See `BlockMap`."""
        grad_x = self.scratch("grad_source", x.shape) if "x" in needs else None
        for term, (first, second) in enumerate(self.terms):
            shape = first.shape(x.shape)
            if second.name in needs:
                middle = self.scratch("middle", shape)
                first.apply(x, middle, add=False)
                getattr(self.grads, second.name)[term].add_(second.weight_grad(middle, grad))
            if first.name not in needs and grad_x is None:
                continue
            grad_middle = self.scratch("grad_middle", shape)
            second.input_grad(grad, grad_middle, add=False)
            if first.name in needs:
                getattr(self.grads, first.name)[term].add_(first.weight_grad(x, grad_middle))
            if grad_x is not None:
                first.input_grad(grad_middle, grad_x, add=term > 0)
        return grad_x


class Matrix(BlockMap):
    """One product over all coordinates of a position; a sum of terms is added up first."""

    def __init__(self, weights: Weights, grads: Weights, scratch: Scratch) -> None:
        super().__init__(weights, grads, scratch)
        self.made: Tensor | None = None
        self.grad_matrix = grads.full

    @property
    def matrix(self) -> Tensor:
        """[C_out, C_in], made when it is first read: gradients of weights alone need none."""
        if self.made is None:
            dtype = self.scratch.like.dtype
            matrix = self.weights.full
            if matrix is None:
                precise = torch.promote_types(dtype, self.weights.terms[0].dtype)
                matrix = sum_terms(*(part[None].to(precise) for part in self.weights.terms))[0]
            self.made = matrix.to(dtype)
        return self.made

    def source(self, shape: tuple[int, ...]) -> Tensor:
        """See `BlockMap`; positions before heads in memory."""
        c, H, T, D = shape
        return self.scratch("source", (c, T, H, D)).transpose(1, 2)

    def _rows(self, x: Tensor, name: str) -> Tensor:
        """[c, H, T, D] -> [c·T, C]; no copy of what `source` laid out."""
        rows = x.transpose(1, 2)
        if not rows.is_contiguous():
            rows = self.scratch(name, tuple(rows.shape)).copy_(rows)
        return rows.flatten(2).flatten(0, 1)

    def apply(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See `BlockMap`."""
        rows = self._rows(x, "rows")
        c, H_out, T, D_out = out.shape
        mapped = self.scratch("mapped", (c, T, H_out, D_out))
        torch.mm(rows, self.matrix.mT, out=mapped.view(len(rows), -1))
        if bias is None:
            out.copy_(mapped.transpose(1, 2))
        else:
            torch.add(mapped.transpose(1, 2), bias[:, None], out=out)

    def backward(self, x: Tensor, grad: Tensor, needs: AbstractSet[str]) -> Tensor | None:
        """See `BlockMap`."""
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
        grad_x = self.scratch("grad_source", (c, T, H_in, D_in))
        torch.mm(grad_rows, self.matrix, out=grad_x.view(len(grad_rows), -1))
        return grad_x.transpose(1, 2)

    def finish(self) -> None:
        """Split the matrix's gradient into those of the terms."""
        if self.weights.full is None and self.grad_matrix is not None:
            grads = _split(self.grad_matrix, *self.weights.terms)
            for total, grad in zip((self.grads.head, self.grads.dim), grads):
                if total is not None:
                    total.add_(grad)
        self.made = self.grad_matrix = None  # the next layer's take their place


def _split(matrix: Tensor, head: Tensor, dim: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the terms that a matrix is the sum of, from the matrix's own.

    Over pairs of heads and pairs of dims the sum is a product of two matrices; for each output
    head by itself where it has dim maps of its own.
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


def cheapest_map(
    weights: Weights, num_positions: int, needs: AbstractSet[str] | None
) -> type[BlockMap]:
    """The form that takes fewer FLOPs for a layer.

    Args:
        weights: of all layers.
        num_positions: B·T.
        needs: the gradients of a backward pass; None for the forward pass.
    """
    if weights.full is not None:
        return Matrix
    head, dim = weights.terms
    (H_out, H_in), (D_out, D_in) = head.shape[-2:], dim.shape[-2:]
    rank = head.shape[1]
    of_weights = needs is not None and bool(needs & {"head", "dim"})
    of_input = needs is None or "x" in needs
    # Of weights: the terms' first products again and two gradients; a matrix needs one product.
    passes = 2 * of_weights + of_input
    term = _term_flops(head, dim, heads_go_first(head[0], dim[0]))
    terms = TERM_COST * num_positions * rank * term * passes
    size = H_out * D_out * H_in * D_in
    matrix = size * (num_positions * (of_weights + of_input) + rank * (2 * of_weights + of_input))
    return Matrix if matrix < terms else SumOfTerms
