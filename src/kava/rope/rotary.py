"""Rotary position embeddings: take keys and queries out of their rotation, and put them back.

A cache holds keys as attention uses them: rotated by the position each one stands at. Keys of
different positions, or of models with different frequencies, can only be compared in a common
rotation (Su et al., arXiv 2104.09864, eq. 15: each pair of dimensions is turned by position ×
frequency). `Rotary` describes a model's rotation as plain numbers; the functions here are pure
tensor functions of it.

Shapes: B batch, L layers, H heads (key/value or query), T positions, D head dim, R the rotary
dims (R ≤ D; the others pass through).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kava.rope.scaling import NoScaling, RopeScaling

Layout = Literal["half", "interleaved"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotary:
    """How a model rotates keys and queries.

    Args:
        inv_freq: [R/2], or [L, R/2] where layers differ (sliding and full attention with their
            own base); radians per position. A layer that does not rotate has zeros.
        rotary_dim: R, the leading dims of each head that are rotated.
        attention_scaling: what the rotated dims are multiplied by besides (yarn); one number,
            or one per layer.
        layout: which dims pair up: "half" pairs i with i + R/2 (Llama, GPT-NeoX),
            "interleaved" pairs 2i with 2i + 1 (GPT-J, GLM, Cohere).
        num_positions: `inv_freq` holds for texts of at most this length (dynamic and longrope
            scaling change it with the length of the text); None: for all.
        longer: the frequencies of a longer text, from its length; None where they are unknown.

    Raises:
        ValueError: `inv_freq` does not fit `rotary_dim`.

    Example:
        >>> Rotary(inv_freq=torch.tensor([1.0, 0.01]), rotary_dim=4)
    """

    inv_freq: Tensor
    rotary_dim: int
    attention_scaling: float | tuple[float, ...] = 1.0
    layout: Layout = "half"
    num_positions: int | None = None
    longer: Callable[[int], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.inv_freq.ndim not in (1, 2) or self.inv_freq.shape[-1] * 2 != self.rotary_dim:
            raise ValueError(
                f"inv_freq must be [{self.rotary_dim // 2}] or [L, {self.rotary_dim // 2}] for "
                f"rotary_dim={self.rotary_dim}, got {tuple(self.inv_freq.shape)}"
            )

    @classmethod
    def of(
        cls,
        *,
        rotary_dim: int,
        theta: float = 10_000.0,
        scaling: RopeScaling | None = None,
        layout: Layout = "half",
    ) -> Rotary:
        """A rotation from its numbers, without a model.

        Args:
            rotary_dim: R; less than the head dim for a partial rotation.
            theta: the base.
            scaling: from `kava.rope.build_scaling`; None scales nothing.
            layout: as above.

        Example:
            >>> Rotary.of(rotary_dim=4, scaling=build_scaling("linear", factor=2.0)).inv_freq
            tensor([0.5000, 0.0050])
        """
        scaling = NoScaling() if scaling is None else scaling

        def longer(length: int) -> Tensor:
            return scaling.inv_freq(rotary_dim, theta, length)

        return cls(
            inv_freq=scaling.inv_freq(rotary_dim, theta),
            rotary_dim=rotary_dim,
            attention_scaling=scaling.attention_scaling,
            layout=layout,
            num_positions=scaling.num_positions,
            longer=None if scaling.num_positions is None else longer,
        )

    def at_length(self, length: int) -> Rotary:
        """The rotation of a text of `length` positions: its frequencies are fixed.

        A forward rotates all of its positions with the frequencies that go with the highest one
        (of the whole batch). Positions that were selected from it still carry these, so that a
        trace is un-rotated at the length it was written with, not at that of what is left of it.

        Args:
            length: the highest position id of the forward + 1.

        Raises:
            ValueError: a length beyond `num_positions` whose frequencies are unknown.

        Example:
            >>> rotary = rotary_of(model).at_length(int(trace.positions.max()) + 1)
        """
        if self.num_positions is None:
            return self
        if length <= self.num_positions:
            return replace(self, num_positions=None, longer=None)
        if self.longer is None:
            raise ValueError(
                f"a text of {length} positions is beyond the {self.num_positions} for which this "
                f"model's frequencies are known; use shorter texts"
            )
        return replace(self, inv_freq=self.longer(length), num_positions=None, longer=None)

    def angles(self, positions: Tensor, num_layers: int) -> Tensor:
        """The angle of every pair of dims, ready to broadcast over [B, L, H, T, R/2].

        Frequencies that depend on the length of the text are those of the highest position.

        Args:
            positions: [B, T] or [B, L, H, T].
            num_layers: L.

        Returns:
            Radians in float32, [B, 1, 1, T, R/2] where neither positions nor frequencies
            differ by layer.

        Raises:
            ValueError: per-layer frequencies of another number of layers, or positions whose
                frequencies are unknown.
        """
        if self.num_positions is not None:
            return self.at_length(int(positions.max()) + 1).angles(positions, num_layers)
        if self.inv_freq.ndim == 2 and len(self.inv_freq) != num_layers:
            raise ValueError(
                f"the rotation describes {len(self.inv_freq)} layers, the keys have {num_layers}"
            )
        inv_freq = self.inv_freq.to(device=positions.device, dtype=torch.float32)
        if inv_freq.ndim == 2:
            inv_freq = inv_freq[:, None, None]
        wide = positions if positions.ndim == 4 else positions[:, None, None]
        return wide[..., None].float() * inv_freq

    def scaling(self, device: torch.device) -> Tensor | float:
        """`attention_scaling`, ready to broadcast over [B, L, H, T, R/2]."""
        if isinstance(self.attention_scaling, tuple):
            return torch.tensor(self.attention_scaling, device=device)[:, None, None, None]
        return self.attention_scaling


def rotate(x_BLHTD: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """Rotate keys or queries to `positions`, as the model would.

    Args:
        x_BLHTD: [B, L, H, T, D], un-rotated.
        positions: [B, T], or [B, L, h, T] where H is a multiple of h (queries follow the
            key/value head of their group).
        rotary: the model's rotation.

    Returns:
        [B, L, H, T, D], in the input's dtype.

    Raises:
        ValueError: positions that do not fit, or that are beyond the rotation's range.

    Example:
        >>> moved = rotate(unrotate(keys, positions, rotary), new_positions, rotary)
    """
    angles = _angles(x_BLHTD, positions, rotary)
    scaling = rotary.scaling(x_BLHTD.device)
    return _turn(x_BLHTD, angles.cos() * scaling, angles.sin() * scaling, rotary)


def unrotate(x_BLHTD: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """The inverse of `rotate`: keys or queries as they were before the rotation.

    Equal to what the model's own projection (and key norm, where it has one) gave, up to
    rounding: a rotation is undone by the opposite angle, the scaling by a division.

    Args:
        x_BLHTD: [B, L, H, T, D], rotated.
        positions: [B, T] or [B, L, h, T], as for `rotate`.
        rotary: the model's rotation.

    Returns:
        [B, L, H, T, D], in the input's dtype.

    Raises:
        ValueError: positions that do not fit, or that are beyond the rotation's range.

    Example:
        >>> plain = unrotate(trace.keys, trace.positions, rotary_of(model))
    """
    angles = _angles(x_BLHTD, positions, rotary)
    scaling = rotary.scaling(x_BLHTD.device)
    return _turn(x_BLHTD, angles.cos() / scaling, -angles.sin() / scaling, rotary)


def rerotate(
    x_BLHTD: Tensor,
    positions: Tensor,
    rotary: Rotary | None,
    other: Rotary | None,
    other_positions: Tensor | None = None,
) -> Tensor:
    """Move keys or queries from one model's rotation to another's, at other positions.

    Equal to `rotate(unrotate(x, positions, rotary), other_positions, other)`, but in one rotation
    by the difference of the angles if both pair up the same dims. Equal rotations and positions
    give the input back, bit by bit.

    Args:
        x_BLHTD: [B, L, H, T, D], rotated by `rotary`.
        positions: [B, T] or [B, L, h, T], the present positions of the keys.
        rotary: the rotation they carry (a teacher's); None for learned positions, which rotate
            nothing.
        other: the rotation to give them (a student's); None for learned positions.
        other_positions: their new positions; default: the present ones.

    Returns:
        [B, L, H, T, D], in the input's dtype.

    Raises:
        ValueError: positions that do not fit, or that are beyond a rotation's range.

    Example:
        >>> keys = torch.randn(1, 2, 4, 3, 8)
        >>> long = Rotary.of(rotary_dim=8, theta=1e6)
        >>> short = Rotary.of(rotary_dim=8, theta=1e4)
        >>> rerotate(keys, torch.tensor([[7, 8, 9]]), long, short, torch.arange(3)[None]).shape
        torch.Size([1, 2, 4, 3, 8])
    """
    there = positions if other_positions is None else other_positions
    if rotary is None or other is None:
        plain = x_BLHTD if rotary is None else unrotate(x_BLHTD, positions, rotary)
        return plain if other is None else rotate(plain, there, other)
    if (rotary.layout, rotary.rotary_dim) != (other.layout, other.rotary_dim):
        return rotate(unrotate(x_BLHTD, positions, rotary), there, other)
    angles = _angles(x_BLHTD, there, other) - _angles(x_BLHTD, positions, rotary)
    scaling = other.scaling(x_BLHTD.device) / rotary.scaling(x_BLHTD.device)
    return _turn(x_BLHTD, angles.cos() * scaling, angles.sin() * scaling, rotary)


def _angles(x: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    B, L, H, T, D = x.shape
    fits = positions.shape == (B, T) or (
        positions.ndim == 4
        and (positions.shape[0], positions.shape[1], positions.shape[3]) == (B, L, T)
        and H % positions.shape[2] == 0
    )
    if not fits:
        raise ValueError(
            f"positions must be [{B}, {T}] or [{B}, {L}, {H}, {T}], got {tuple(positions.shape)}"
        )
    if rotary.rotary_dim > D:
        raise ValueError(f"the rotation turns {rotary.rotary_dim} dims, the heads have {D}")
    angles = rotary.angles(positions, L)
    if positions.ndim == 4 and positions.shape[2] not in (1, H):
        angles = angles.repeat_interleave(H // positions.shape[2], dim=2)
    return angles


def _turn(x: Tensor, cos: Tensor, sin: Tensor, rotary: Rotary) -> Tensor:
    # In the model's own dtype, as transformers computes it: angles alone need float32.
    return _Turn.apply(x, cos.to(x.dtype), sin.to(x.dtype), rotary.layout)


class _Turn(torch.autograd.Function):
    """Turn pairs of dims, written into one new tensor: temporaries of its size cost more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        R = 2 * cos.shape[-1]
        pair = [slice(0, R // 2), slice(R // 2, R)]
        if layout == "interleaved":
            pair = [slice(0, R, 2), slice(1, R, 2)]
        out = torch.empty_like(x)
        (a, b), (turned_a, turned_b) = ([part[..., cut] for cut in pair] for part in (x, out))
        torch.mul(a, cos, out=turned_a)
        turned_a.addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=turned_b)
        turned_b.addcmul_(a, sin)
        out[..., R:] = x[..., R:]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _Turn.apply(grads[0], cos, -sin, ctx.layout), None, None, None
