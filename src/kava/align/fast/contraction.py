"""The linear maps of alignment as matrix products over contiguous views.

    y[b, i, h] = b[i, h] + Σ_l W[i, l] · Σ_r Σ_g M[i, r, h, g] · x[b, l, g] · P[i, r, h]ᵀ

with layer weights W and, per layer or shared by all layers, head mixes M, dim maps P and a bias;
or one matrix over all heads of a position instead of M and P. `plain` computes the same with
`torch.einsum`, which permutes whole tensors between the factors. Here one block of samples of one
student layer goes through all factors while it is still in the CPU cache: a sum over the few
non-zero layer weights, [H_s, H_t] @ [H_t, T·D], and [·, D_t] @ [D_t, D_s] straight into the
output, term by term; `kernels` decides when one matrix is cheaper. The backward pass recomputes
the intermediates from x instead of keeping them.

Shapes: B batch, L_t/L_s layers, H_t/H_s heads, T positions, D_t/D_s head dims, of teacher and
student; r terms; c samples in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from kava.align.fast.kernels import LayerKernel, MatrixKernel, cheapest_kernel
from kava.align.fast.weights import Buffers, MapWeights
from kava.align.layers.sparse_map import ONE_LAYER, Row, Rows, is_identity

# On a CPU a block and its intermediates stay in the last-level cache; elsewhere large blocks save
# kernel launches.
CPU_BLOCK_BYTES = 4 << 20
DEVICE_BLOCK_BYTES = 256 << 20


def mix_layers(x_BLHTD: Tensor, rows: Rows) -> Tensor:
    """See `kava.align.linear_maps.mix_layers`."""
    if is_identity(rows, x_BLHTD.shape[1]):
        return x_BLHTD
    mixed: Tensor = _MixLayers.apply(x_BLHTD, rows)
    return mixed


def apply_terms(
    x_BLHTD: Tensor,
    head_weight: Tensor,
    dim_weight: Tensor,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """See `kava.align.linear_maps.apply_terms`."""
    if head_weight.ndim == 2:
        head_weight, dim_weight = head_weight[None, None], dim_weight[None, None]
    heads = head_weight.shape[-2]
    y: Tensor = _ApplyMap.apply(x_BLHTD, rows, heads, bias, head_weight, dim_weight, None)
    return y


def apply_matrix(
    x_BLHTD: Tensor,
    weight: Tensor,
    num_heads: int,
    rows: Rows = ONE_LAYER,
    bias: Tensor | None = None,
) -> Tensor:
    """See `kava.align.linear_maps.apply_matrix`."""
    y: Tensor = _ApplyMap.apply(x_BLHTD, rows, num_heads, bias, None, None, weight)
    return y


def _sample_blocks(x_BLHTD: Tensor) -> Iterator[slice]:
    """Slices of the batch: as many samples as fit into a block with one layer each."""
    batch, _, *sample = x_BLHTD.shape
    limit = CPU_BLOCK_BYTES if x_BLHTD.device.type == "cpu" else DEVICE_BLOCK_BYTES
    sample_bytes = x_BLHTD.element_size() * max(1, torch.Size(sample).numel())
    size = min(max(1, batch), max(1, limit // sample_bytes))
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


def _blocks(x_BLHTD: Tensor, num_layers: int) -> Iterator[tuple[int, slice]]:
    """(student layer, samples) of every block: all layers of a few samples, then the next few."""
    for samples in _sample_blocks(x_BLHTD):
        for layer in range(num_layers):
            yield layer, samples


def _sum_layers(x_BLHTD: Tensor, row: Row, samples: slice, out: Tensor) -> Tensor:
    (first, weight), *others = row
    torch.mul(x_BLHTD[samples, first], weight, out=out)
    for layer, weight in others:
        out.add_(x_BLHTD[samples, layer], alpha=weight)
    return out


class _LayerGrad:
    """The gradient of x, [B, L_t, H, T, D].

    The first student layer that reads a teacher layer writes its gradient, the others add to it.
    """

    def __init__(self, x_BLHTD: Tensor, rows: Rows) -> None:
        self.grad_BLHTD = x_BLHTD.new_empty(x_BLHTD.shape)
        self.rows = rows
        self.first_reader: dict[int, int] = {}
        for student, row in enumerate(rows):
            for layer, _ in row:
                self.first_reader.setdefault(layer, student)
        for layer in set(range(x_BLHTD.shape[1])) - self.first_reader.keys():
            self.grad_BLHTD[:, layer] = 0

    def add(self, student: int, samples: slice, grad_cHTD: Tensor) -> None:
        for layer, weight in self.rows[student]:
            part = self.grad_BLHTD[samples, layer]
            if self.first_reader[layer] == student:
                torch.mul(grad_cHTD, weight, out=part)
            else:
                part.add_(grad_cHTD, alpha=weight)


class _MixLayers(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(x)
        y = x.new_empty(x.shape[0], len(rows), *x.shape[2:])
        for layer, samples in _blocks(x, len(rows)):
            _sum_layers(x, rows[layer], samples, out=y[samples, layer])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        grad_x = _LayerGrad(x, ctx.rows)
        for layer, samples in _blocks(x, len(ctx.rows)):
            grad_x.add(layer, samples, grad_y[samples, layer])
        return grad_x.grad_BLHTD, None


NO_GRADS = MapWeights(None, None, None)


def _blocks_with_kernels(
    x_BLHTD: Tensor,
    rows: Rows,
    weights: MapWeights,
    grads: MapWeights,
    needs: AbstractSet[str] | None,
) -> Iterator[tuple[int, slice, LayerKernel]]:
    """(student layer, samples, the layer's kernel) of every block."""
    kernel_class = cheapest_kernel(weights, x_BLHTD.shape[0] * x_BLHTD.shape[3], needs)
    layers = range(len(rows))
    # Layer by layer for matrices, which are large, so that only one exists at a time.
    groups = (
        [range(layer, layer + 1) for layer in layers] if kernel_class is MatrixKernel else [layers]
    )
    buffers = Buffers(x_BLHTD)
    for group in groups:
        kernels = {
            layer: kernel_class(weights.at(layer), grads.at(layer), buffers) for layer in group
        }
        for samples in _sample_blocks(x_BLHTD):
            for layer in group:
                yield layer, samples, kernels[layer]
        for kernel in kernels.values():
            kernel.finish()
        kernels.clear()


def _source(x_BLHTD: Tensor, row: Row, samples: slice, kernel: LayerKernel) -> Tensor:
    """The block's mixed teacher layers, [c, H_t, T, D_t]; a view if there is only one layer."""
    if len(row) == 1 and row[0][1] == 1.0:
        return x_BLHTD[samples, row[0][0]]
    shape = (samples.stop - samples.start, *x_BLHTD.shape[2:])
    return _sum_layers(x_BLHTD, row, samples, out=kernel.source(shape))


class _ApplyMap(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Rows,
        num_heads: int,
        bias: Tensor | None,
        head: Tensor | None,
        dim: Tensor | None,
        full: Tensor | None,
    ) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(x, bias, head, dim, full)
        weights = MapWeights(head, dim, full)
        y = x.new_empty(x.shape[0], len(rows), num_heads, x.shape[3], weights.num_rows // num_heads)
        shift = None if bias is None else bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            for layer, samples, kernel in _blocks_with_kernels(x, rows, weights, NO_GRADS, None):
                source = _source(x, rows[layer], samples, kernel)
                kernel.apply(source, None if shift is None else shift[layer], y[samples, layer])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, *saved = ctx.saved_tensors
        inputs = ("x", "rows", "num_heads", "bias", *MapWeights._fields)
        needs = {name for name, needed in zip(inputs, ctx.needs_input_grad) if needed}
        # A sum over many blocks needs more precision than half precision offers.
        wide = torch.promote_types(x.dtype, torch.float32)
        grads = MapWeights(
            *(
                torch.zeros_like(part, dtype=wide) if name in needs else None
                for name, part in zip(MapWeights._fields, saved)
            )
        )
        grad_bias = torch.zeros_like(bias, dtype=wide) if "bias" in needs else None
        grad_x = _LayerGrad(x, ctx.rows) if "x" in needs else None
        with torch.autocast(x.device.type, enabled=False):
            for layer, samples, kernel in _blocks_with_kernels(
                x, ctx.rows, MapWeights(*saved), grads, needs
            ):
                grad_out = grad_y[samples, layer]
                source = _source(x, ctx.rows[layer], samples, kernel)
                grad_source = kernel.backward(source, grad_out, needs)
                if grad_bias is not None:
                    grad_bias[layer].add_(grad_out.sum((0, 2), dtype=wide))
                if grad_x is not None and grad_source is not None:
                    grad_x.add(layer, samples, grad_source)
        cast = (
            None if grad is None else grad.to(part.dtype)
            for grad, part in zip((grad_bias, *grads), (bias, *saved))
        )
        return None if grad_x is None else grad_x.grad_BLHTD, None, None, *cast
