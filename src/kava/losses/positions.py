"""Arithmetic over valid positions, shared by all losses: mask, cosine, count.

Padding is taken out of the input and not only out of the result: a padded position may hold
anything, NaN included, and the backward pass of `0 · NaN` is NaN.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.trace import KVTrace

NumItems = Tensor | float | None

# Below this spread a layer is constant up to rounding: it is left as it is, not divided.
MIN_STD = 1e-6
# Below this norm a vector is rounding noise and has no direction.
MIN_NORM = 1e-6


def check_pair(student: KVTrace, target: KVTrace) -> None:
    """Refuse two traces that cannot be compared position by position.

    Raises:
        ValueError: the shapes differ, or only one of the two carries its rotary embedding.
    """
    for name, ours, theirs in (
        ("keys", student.keys, target.keys),
        ("values", student.values, target.values),
    ):
        check_same_shape(name, ours, theirs)
    if student.rotated != target.rotated:
        raise ValueError(
            f"student keys have rotated={student.rotated} and target keys "
            f"rotated={target.rotated}; bring both to one rotation before comparing them"
        )


def check_same_shape(name: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse two tensors of different shapes.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {name} {tuple(student.shape)} and teacher {name} {tuple(teacher.shape)} "
            f"differ in shape; align the teacher to the student's layers, heads, length and "
            f"head dim first"
        )


def common_mask(student: KVTrace, target: KVTrace) -> Tensor | None:
    """[B, T] bool, True where both traces are valid; None where neither has a mask."""
    if student.mask is None or target.mask is None:
        mask = target.mask if student.mask is None else student.mask
        return None if mask is None else mask.bool()
    return student.mask.bool() & target.mask.bool()


def zero_padding(x_BXTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """`x_BXTD` in float32 with zeros at the padded positions; no gradient flows into them."""
    x_BXTD = x_BXTD.float()
    if mask_BT is None:
        return x_BXTD
    return x_BXTD.masked_fill(~expand_mask(mask_BT, x_BXTD), 0.0)


def expand_mask(mask_BT: Tensor, x_BXTD: Tensor) -> Tensor:
    """`mask_BT` as a view that broadcasts against `x_BXTD` of any number of middle axes.

    Raises:
        ValueError: the mask does not have the batch and positions of `x_BXTD`.
    """
    B, T = x_BXTD.shape[0], x_BXTD.shape[-2]
    if mask_BT.shape != (B, T):
        raise ValueError(f"mask must be [{B}, {T}], got {tuple(mask_BT.shape)}")
    middle = (1,) * (x_BXTD.ndim - 3)
    return mask_BT.bool().reshape(B, *middle, T, 1)


def mean_over_items(values_BT: Tensor, mask_BT: Tensor | None, num_items: NumItems) -> Tensor:
    """Σ of `values_BT` over the valid positions, divided by `num_items`.

    Args:
        values_BT: [B, T], finite everywhere.
        mask_BT: [B, T] bool, or None where all positions are valid.
        num_items: the count to divide by; None for the valid positions in `mask_BT`. A count of
            zero gives zero.

    Raises:
        ValueError: a `num_items` that is a negative number.
    """
    if mask_BT is not None:
        values_BT = values_BT.masked_fill(~mask_BT.bool(), 0.0)
        count: Tensor | float = mask_BT.sum() if num_items is None else num_items
    else:
        count = values_BT.numel() if num_items is None else num_items
    return divide_by_count(values_BT.sum(), count)


def divide_by_count(total: Tensor, count: Tensor | float) -> Tensor:
    """`total / count`, and zero where `count` is zero.

    Raises:
        ValueError: a `count` that is a negative number.
    """
    if isinstance(count, Tensor):
        count = count.to(device=total.device, dtype=total.dtype)
        return total / torch.where(count == 0, 1.0, count)
    if count < 0:
        raise ValueError(f"num_items={count} is negative; give the number of valid positions")
    return total / (count or 1.0)


def cosine_distance(student_XD: Tensor, teacher_XD: Tensor) -> Tensor:
    """1 − cos of the angle between the vectors along the last axis.

    A teacher vector of zero length has no direction to match and costs 0; a student vector of
    zero length costs 1, as an orthogonal one does. Neither sends a gradient.

    Args:
        student_XD: [..., D] in float32.
        teacher_XD: [..., D] in float32.

    Returns:
        [...], between 0 and 2.
    """
    inverse_X = inverse_norm(student_XD) * inverse_norm(teacher_XD)
    cosine_X = (student_XD * teacher_XD).sum(-1) * inverse_X
    return torch.where(squared_norm(teacher_XD) <= MIN_NORM**2, 0.0, 1.0 - cosine_X)


def squared_norm(x_XD: Tensor) -> Tensor:
    """‖x‖² along the last axis."""
    return x_XD.square().sum(-1)


def inverse_norm(x_XD: Tensor) -> Tensor:
    """1 / ‖x‖ along the last axis, and 0 where ‖x‖ is no more than `MIN_NORM`."""
    squared_X = squared_norm(x_XD)
    inverse_X = squared_X.clamp(min=MIN_NORM**2).rsqrt()
    return torch.where(squared_X <= MIN_NORM**2, 0.0, inverse_X)


@torch.no_grad()
def mean_cosine(
    student: Tensor, target: Tensor, mask_BT: Tensor | None, num_items: NumItems
) -> Tensor:
    """The mean cosine similarity of two [B, L, H, T, D] tensors along D, as a detached scalar."""
    distance = cosine_distance(zero_padding(student, mask_BT), zero_padding(target, mask_BT))
    return mean_over_items(1.0 - distance.mean(dim=(1, 2)), mask_BT, num_items)
