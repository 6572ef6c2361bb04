"""The linear maps of structured alignment as matrix products over contiguous views.

    y[b, i, h] = Σ_l W[i, l] · Σ_g M[h, g] · x[b, l, g] · P_hᵀ

with layer weights W, head mixer M and dim map P. A general contraction (`torch.einsum`) permutes
whole tensors between the factors. Here one block of samples of one student layer is carried
through all of them while it is still in the cache: a sum over the few non-zero layer weights,
[H_s, H_t] @ [H_t, T·D], and [·, D_t] @ [D_t, D_s] straight into the one output. The two products
commute, and the cheaper order is taken. The backward pass recomputes the intermediates from x
instead of keeping them.

Shapes: B batch, L_t/L_s layers, H_t/H_s heads, T positions, D_t/D_s head dims, of teacher and
student; c samples in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Row = tuple[tuple[int, float], ...]
"""The (teacher layer, weight) pairs of one student layer, non-zero weights only."""

Rows = tuple[Row, ...]

ONE_LAYER: Rows = (((0, 1.0),),)

# A block and its intermediates stay in a CPU's last-level cache; elsewhere few launches count.
CPU_BLOCK_BYTES = 4 << 20
DEVICE_BLOCK_BYTES = 256 << 20


def sparse_rows(weights_ST: Tensor) -> Rows:
    """The non-zero entries of a layer map [L_s, L_t]."""
    return tuple(
        tuple((layer, weight) for layer, weight in enumerate(row) if weight)
        for row in weights_ST.tolist()
    )


def identity_rows(num_layers: int) -> Rows:
    """The rows of the map between equal depths that takes each layer as it is."""
    return tuple(((layer, 1.0),) for layer in range(num_layers))


def is_identity(rows: Rows, num_teacher_layers: int) -> bool:
    """Whether each student layer is the teacher layer of the same number."""
    return rows == identity_rows(num_teacher_layers)


def mix_layers(x_BLHTD: Tensor, rows: Rows) -> Tensor:
    """Sum teacher layers by the weights of `rows`: [B, L_t, H, T, D] -> [B, L_s, H, T, D].

    The identity returns its input.
    """
    if is_identity(rows, x_BLHTD.shape[1]):
        return x_BLHTD
    mixed: Tensor = _MixLayers.apply(x_BLHTD, rows)
    return mixed


def contract(
    x_BLHTD: Tensor, head_weight: Tensor, dim_weight: Tensor, rows: Rows = ONE_LAYER
) -> Tensor:
    """Mix layers and heads, and map the head dim, in one pass.

    Args:
        x_BLHTD: [B, L_t, H_t, T, D_t].
        head_weight: [H_s, H_t].
        dim_weight: [D_s, D_t], or [H_s, D_s, D_t] for one map per student head.
        rows: the layer map's non-zero weights.

    Returns:
        [B, L_s, H_s, T, D_s] in the dtype of `x_BLHTD`, which the weights follow.
    """
    y: Tensor = _Contract.apply(x_BLHTD, head_weight, dim_weight, rows)
    return y


def _blocks(x_BLHTD: Tensor, num_layers: int) -> Iterator[tuple[int, slice]]:
    """(student layer, samples) of every block, each sample's blocks close together in time."""
    batch, _, *sample = x_BLHTD.shape
    limit = CPU_BLOCK_BYTES if x_BLHTD.device.type == "cpu" else DEVICE_BLOCK_BYTES
    sample_bytes = x_BLHTD.element_size() * max(1, torch.Size(sample).numel())
    size = min(max(1, batch), max(1, limit // sample_bytes))
    for start in range(0, batch, size):
        for layer in range(num_layers):
            yield layer, slice(start, min(start + size, batch))


def _sum_layers(x_BLHTD: Tensor, row: Row, samples: slice, out: Tensor) -> Tensor:
    (first, weight), *others = row
    torch.mul(x_BLHTD[samples, first], weight, out=out)
    for layer, weight in others:
        out.add_(x_BLHTD[samples, layer], alpha=weight)
    return out


class _LayerGrad:
    """The gradient of x, [B, L_t, H, T, D]; a teacher layer's first reader writes, others add."""

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


class _HeadMix:
    """[c, H_t, T, D] -> [c, H_s, T, D] by a weight [H_s, H_t]."""

    name = "head"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def shape(self, source: torch.Size) -> tuple[int, ...]:
        return (source[0], self.weight.shape[0], *source[2:])

    def apply(self, x: Tensor, out: Tensor) -> Tensor:
        weight = self.weight.expand(len(x), -1, -1)
        torch.bmm(weight, x.flatten(2), out=out.view(*out.shape[:2], -1))
        return out

    def input_grad(self, grad: Tensor, out: Tensor) -> Tensor:
        weight = self.weight.mT.expand(len(grad), -1, -1)
        torch.bmm(weight, grad.flatten(2), out=out.view(*out.shape[:2], -1))
        return out

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.bmm(grad.flatten(2), x.flatten(2).mT).sum(0)


class _DimMap:
    """[c, H, T, D_t] -> [c, H, T, D_s] by a weight [D_s, D_t] for all heads."""

    name = "dim"

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def shape(self, source: torch.Size) -> tuple[int, ...]:
        return (*source[:-1], self.weight.shape[-2])

    def apply(self, x: Tensor, out: Tensor) -> Tensor:
        weight = self.weight.mT.expand(len(x), -1, -1)
        torch.bmm(x.flatten(1, 2), weight, out=out.view(len(x), -1, out.shape[-1]))
        return out

    def input_grad(self, grad: Tensor, out: Tensor) -> Tensor:
        weight = self.weight.expand(len(grad), -1, -1)
        torch.bmm(grad.flatten(1, 2), weight, out=out.view(len(grad), -1, out.shape[-1]))
        return out

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.bmm(grad.flatten(1, 2).mT, x.flatten(1, 2)).sum(0)


class _DimMapPerHead(_DimMap):
    """[c, H, T, D_t] -> [c, H, T, D_s] by a weight [H, D_s, D_t]."""

    def apply(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.matmul(x, self.weight.mT, out=out)

    def input_grad(self, grad: Tensor, out: Tensor) -> Tensor:
        return torch.matmul(grad, self.weight, out=out)

    def weight_grad(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.matmul(grad.mT, x).sum(0)


Stage = _HeadMix | _DimMap


def _cheapest_order(head_weight: Tensor, dim_weight: Tensor) -> tuple[Stage, Stage]:
    """Heads first, unless a dim map shared by all heads is cheaper before H grows."""
    if dim_weight.ndim == 3:
        return _HeadMix(head_weight), _DimMapPerHead(dim_weight)
    (H_s, H_t), (D_s, D_t) = head_weight.shape, dim_weight.shape
    if H_t * D_t * D_s + H_s * H_t * D_s < H_s * H_t * D_t + H_s * D_t * D_s:
        return _DimMap(dim_weight), _HeadMix(head_weight)
    return _HeadMix(head_weight), _DimMap(dim_weight)


class _Scratch:
    """Buffers that the blocks take turns in; the first block is the largest."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.buffers:
            self.buffers[name] = self.like.new_empty(shape)
        return self.buffers[name][: shape[0]]

    def source(self, x: Tensor, row: Row, samples: slice) -> Tensor:
        """The block's teacher layers, mixed: [c, H_t, T, D_t]; a view where one is taken whole."""
        if len(row) == 1 and row[0][1] == 1.0:
            return x[samples, row[0][0]]
        shape = (samples.stop - samples.start, *x.shape[2:])
        return _sum_layers(x, row, samples, out=self("source", shape))


class _Contract(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, head_weight: Tensor, dim_weight: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(x, head_weight, dim_weight)
        first, second = _cheapest_order(head_weight.to(x.dtype), dim_weight.to(x.dtype))
        (B, _, _, T, _), H_s, D_s = x.shape, head_weight.shape[0], dim_weight.shape[-2]
        y = x.new_empty(B, len(rows), H_s, T, D_s)
        scratch = _Scratch(x)
        for layer, samples in _blocks(x, len(rows)):
            source = scratch.source(x, rows[layer], samples)
            middle = first.apply(source, scratch("middle", first.shape(source.shape)))
            second.apply(middle, y[samples, layer])
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_y: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, head_weight, dim_weight = ctx.saved_tensors
        needs = dict(zip(("x", "head", "dim"), ctx.needs_input_grad))
        first, second = _cheapest_order(head_weight.to(x.dtype), dim_weight.to(x.dtype))
        # A sum over many blocks needs more digits than half precision has.
        wide = torch.promote_types(x.dtype, torch.float32)
        grads = {stage.name: stage.weight.new_zeros((), dtype=wide) for stage in (first, second)}
        grad_x = _LayerGrad(x, ctx.rows) if needs["x"] else None
        scratch = _Scratch(x)
        for layer, samples in _blocks(x, len(ctx.rows)):
            grad_out = grad_y[samples, layer]
            source = scratch.source(x, ctx.rows[layer], samples)
            middle_shape = first.shape(source.shape)
            if needs[second.name]:
                middle = first.apply(source, scratch("middle", middle_shape))
                grads[second.name] = grads[second.name] + second.weight_grad(middle, grad_out)
            if not needs[first.name] and grad_x is None:
                continue
            grad_middle = second.input_grad(grad_out, scratch("grad_middle", middle_shape))
            if needs[first.name]:
                grads[first.name] = grads[first.name] + first.weight_grad(source, grad_middle)
            if grad_x is not None:
                grad_source = scratch("grad_source", tuple(source.shape))
                first.input_grad(grad_middle, grad_source)
                grad_x.add(layer, samples, grad_source)
        return (
            None if grad_x is None else grad_x.grad_BLHTD,
            grads["head"].to(head_weight.dtype) if needs["head"] else None,
            grads["dim"].to(dim_weight.dtype) if needs["dim"] else None,
            None,
        )
