"""The flat map of heads and head dims: all heads of a position as one vector.

    y = f(concat_h x_h),   [..., T, H_t·D_t] -> [..., T, H_s·D_s]

The baseline that structured alignment is compared with: any student coordinate may read any
teacher coordinate, at the price of a matrix over all of them and of the head structure. Keys and
values have a stack each; a stack is shared by all layers.

Shapes: B batch, L layers, H heads, T positions, D head dim; C = H·D coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from kava.names import FLAT_VARIANTS


class FlatKV(NamedTuple):
    """Keys and values [..., T, C] of the space that a projector maps to."""

    keys: Tensor
    values: Tensor


def flatten_heads(x_BLHTD: Tensor) -> Tensor:
    """[B, L, H, T, D] -> [B, L, T, H·D], as a model's own projections lay heads out."""
    return x_BLHTD.transpose(2, 3).flatten(3)


def unflatten_heads(x_BLTC: Tensor, num_heads: int) -> Tensor:
    """[B, L, T, H·D] -> [B, L, H, T, D], contiguous."""
    return x_BLTC.unflatten(3, (num_heads, -1)).transpose(2, 3).contiguous()


def _bottleneck(dim_in: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim_in, dim_in), nn.LayerNorm(dim_in), nn.GELU(), nn.Linear(dim_in, dim_out)
    )


def _linear(dim_in: int, dim_out: int, bias: bool) -> nn.Linear:
    """The identity between equal dims, else a random map that keeps the variance."""
    linear = nn.Linear(dim_in, dim_out, bias=bias)
    if dim_in == dim_out:
        nn.init.eye_(linear.weight)
    else:
        nn.init.normal_(linear.weight, std=dim_in**-0.5)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class _Residual(nn.Module):
    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.skip = _linear(dim_in, dim_out, bias=False)
        self.bottleneck = _bottleneck(dim_in, dim_out)
        for parameter in self.bottleneck[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.bottleneck(x)


class FlatStack(nn.Module):
    """One flat map from `dim_in` to `dim_out` coordinates.

    Args:
        dim_in: coordinates of the input.
        dim_out: coordinates of the output.
        variant: "elastic": linear dim_in → dim_in, LayerNorm, GELU, linear dim_in → dim_out,
            with PyTorch's own initialisation; "linear": one affine map, which starts as the
            identity where the dims are equal and else as a random one with entries of variance
            1/dim_in; "residual": a linear skip started in the same way plus an elastic bottleneck
            whose last layer starts at zero.

    Raises:
        ValueError: an unknown variant, a dim below 1, or an input with other coordinates.
    """

    def __init__(self, dim_in: int, dim_out: int, variant: str = "elastic") -> None:
        super().__init__()
        for name, dim in (("input", dim_in), ("output", dim_out)):
            if dim < 1:
                raise ValueError(f"a flat map's {name} dim is {dim}; it must be at least 1")
        self.dim_in = dim_in
        self.dim_out = dim_out
        self.map: nn.Module
        if variant == "elastic":
            self.map = _bottleneck(dim_in, dim_out)
        elif variant == "linear":
            self.map = _linear(dim_in, dim_out, bias=True)
        elif variant == "residual":
            self.map = _Residual(dim_in, dim_out)
        else:
            raise ValueError(
                f"flat variant {variant!r} is unknown; choose from {', '.join(FLAT_VARIANTS)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., T, dim_in] to [..., T, dim_out] in the dtype of the input."""
        if x.shape[-1] != self.dim_in:
            raise ValueError(
                f"the input has {x.shape[-1]} coordinates, but the flat map was made for "
                f"{self.dim_in}; flatten all heads of a position into one vector first"
            )
        parameter = next(self.parameters())
        mapped: Tensor = self.map(x.to(parameter.dtype))
        return mapped.to(x.dtype)

    def map_heads(self, x_BLHTD: Tensor, num_heads: int) -> Tensor:
        """Map [B, L, H_in, T, D_in] to [B, L, num_heads, T, dim_out / num_heads]."""
        return unflatten_heads(self(flatten_heads(x_BLHTD)), num_heads)


class _KVStacks(nn.Module):
    """A stack for keys and a stack for values, between the same dims."""

    def __init__(self, dim_in: int, dim_out: int, variant: str) -> None:
        super().__init__()
        self.key_stack = FlatStack(dim_in, dim_out, variant)
        self.value_stack = FlatStack(dim_in, dim_out, variant)

    def forward(self, keys: Tensor, values: Tensor) -> FlatKV:
        """Map keys and values [..., T, dim_in] to [..., T, dim_out]."""
        return FlatKV(self.key_stack(keys), self.value_stack(values))

    def map_heads(self, keys: Tensor, values: Tensor, num_heads: int) -> FlatKV:
        """Map keys and values [B, L, H, T, D] to [B, L, num_heads, T, dim_out / num_heads]."""
        return FlatKV(
            self.key_stack.map_heads(keys, num_heads), self.value_stack.map_heads(values, num_heads)
        )


class KVDimensionProjector(_KVStacks):
    """Map a teacher's flattened keys and values into a student's space.

    Args:
        teacher_dim: H_t·D_t.
        student_dim: H_s·D_s.
        variant: "elastic", "linear" or "residual", see `FlatStack`.

    Raises:
        ValueError: as `FlatStack` does.

    Example:
        >>> import torch
        >>> projector = KVDimensionProjector(48, 32, variant="linear")
        >>> keys, values = projector(torch.randn(2, 7, 48), torch.randn(2, 7, 48))
        >>> keys.shape
        torch.Size([2, 7, 32])
    """

    def __init__(self, teacher_dim: int, student_dim: int, variant: str = "elastic") -> None:
        super().__init__(teacher_dim, student_dim, variant)


class StudentToTeacherProjector(_KVStacks):
    """Map a student's flattened keys and values into a teacher's space.

    The teacher's cache stays as it is, so the target cannot collapse towards the student while
    the map is trained beside it.

    Args:
        student_dim: H_s·D_s.
        teacher_dim: H_t·D_t.
        variant: "elastic", "linear" or "residual", see `FlatStack`.

    Raises:
        ValueError: as `FlatStack` does.

    Example:
        >>> import torch
        >>> projector = StudentToTeacherProjector(32, 48)
        >>> student = torch.randn(2, 3, 4, 7, 8)  # [B, L, H, T, D]
        >>> projector.map_heads(student, student, num_heads=6).keys.shape
        torch.Size([2, 3, 6, 7, 8])
    """

    def __init__(self, student_dim: int, teacher_dim: int, variant: str = "elastic") -> None:
        super().__init__(student_dim, teacher_dim, variant)
