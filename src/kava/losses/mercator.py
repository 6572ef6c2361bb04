"""Mercator loss: match the direction of keys and values and, with `beta`, their length.

Named after the map that keeps angles and gives up sizes.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.losses.base import KVLossFunction, register_kv_loss
from kava.losses.positions import (
    MIN_NORM,
    NumItems,
    check_pair,
    check_same_shape,
    common_mask,
    cosine_distance,
    mean_over_items,
    squared_norm,
    zero_padding,
)
from kava.losses.weights import LayerWeights, check_weights, mean_over_layers, weigh_positions
from kava.trace import KVTrace


@dataclass(frozen=True)
class MercatorKVLoss:
    """alpha · (1 − cos(s, t)) + beta · (log‖s‖ − log‖t‖)², averaged over all vectors.

    The direction of a key decides what it matches and its length only how sharply, so a student
    may be right before it is as confident as its teacher. Scaling the student by any factor
    leaves the direction loss at 0; orthogonal vectors cost 1 and opposite ones 2.

    This loss comes from earlier public code of the project, where the length term is a squared
    difference of log lengths too. Deviations: vectors shorter than 1e-6 are safe (a zero teacher
    vector costs nothing, a zero student vector costs a direction loss of 1, neither sends a
    gradient), the arithmetic is float32 for any input, and padding is left out.

    Args:
        alpha: weight of the direction.
        beta: weight of the length, 0 to ignore it.
        key_weight: weight of the keys of two traces, in (key_weight · K + value_weight · V) / 2.
        value_weight: weight of the values in the same mean.
        detach_target: send no gradient into the target; off for an aligner that learns beside
            the student, whose own weights are behind the target.

    Raises:
        ValueError: a weight below 0, or both of a pair 0.

    Example:
        >>> teacher = torch.ones(1, 2, 2, 3, 4)
        >>> loss, metrics = MercatorKVLoss()(100 * teacher, teacher)
        >>> round(loss.item(), 6), round(metrics["cos_sim"].item(), 6)
        (0.0, 1.0)
    """

    alpha: float = 1.0
    beta: float = 0.0
    detach_target: bool = True
    key_weight: float = 1.0
    value_weight: float = 1.0

    def __post_init__(self) -> None:
        check_weights("alpha and beta", (self.alpha, self.beta))
        check_weights("key_weight and value_weight", (self.key_weight, self.value_weight))

    def __call__(
        self,
        student: Tensor | KVTrace,
        teacher: Tensor | KVTrace,
        mask: Tensor | None = None,
        *,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare two tensors of keys or values, or two traces.

        Args:
            student: [B, L, H, T, D] (or [B, T, D]), or a trace; it carries the gradient.
            teacher: the same; detached here, unless `detach_target` is off.
            mask: [B, T], true at valid positions; for traces their own masks are used.
            num_items: the number to divide by, by default the valid positions of this batch.
            position_weights: [B, T], normalised to a mean of 1 in each sample.
            layer_weights: [L], normalised to a sum of 1; the tensors then have a layer axis.

        Returns:
            The loss, and `cos_sim`, `dir_loss`, `mag_loss`; for traces, what `compare_traces`
            returns.

        Raises:
            ValueError: shapes that do not fit, or a mask beside traces.
        """
        if isinstance(student, KVTrace) and isinstance(teacher, KVTrace):
            if mask is not None:
                raise ValueError("mask is for tensors; two traces are compared by their own masks")
            return self.compare_traces(student, teacher, num_items, position_weights, layer_weights)
        if isinstance(student, KVTrace) or isinstance(teacher, KVTrace):
            raise ValueError("student and teacher must be two tensors or two traces, not one each")
        check_same_shape("tensor", student, teacher)
        if student.ndim < 3:
            raise ValueError(f"tensors must be [B, L, H, T, D], got {tuple(student.shape)}")
        mask = None if mask is None else mask.bool()
        student = zero_padding(student, mask)
        teacher = zero_padding(teacher.detach() if self.detach_target else teacher, mask)
        distance = cosine_distance(student, teacher)

        def mean(values: Tensor) -> Tensor:
            values_BT = mean_over_heads(values, layer_weights)
            return mean_over_items(
                weigh_positions(values_BT, position_weights, mask), mask, num_items
            )

        direction = mean(distance)
        magnitude = torch.zeros_like(direction)
        if self.beta > 0:
            magnitude = mean(log_norm_gap(student, teacher).square())
        cosine_BT = 1.0 - mean_over_heads(distance.detach(), None)
        metrics = {
            "cos_sim": mean_over_items(cosine_BT, mask, num_items),
            "dir_loss": direction.detach(),
            "mag_loss": magnitude.detach(),
        }
        return self.alpha * direction + self.beta * magnitude, metrics

    def compare_traces(
        self,
        student: KVTrace,
        target: KVTrace,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the loss of the keys and of the values, where both traces are valid."""
        check_pair(student, target)
        mask_BT = common_mask(student, target)
        (keys, of_keys), (values, of_values) = (
            self(
                ours,
                theirs,
                mask_BT,
                num_items=num_items,
                position_weights=position_weights,
                layer_weights=layer_weights,
            )
            for ours, theirs in ((student.keys, target.keys), (student.values, target.values))
        )
        metrics = {
            "kv_k": keys.detach(),
            "kv_v": values.detach(),
            "kv_cos_k": of_keys["cos_sim"],
            "kv_cos_v": of_values["cos_sim"],
        }
        return (self.key_weight * keys + self.value_weight * values) / 2, metrics


def log_norm_gap(student_XD: Tensor, teacher_XD: Tensor) -> Tensor:
    """log‖s‖ − log‖t‖ along the last axis, with lengths of at least `MIN_NORM`."""
    floor = MIN_NORM**2
    student_X = squared_norm(student_XD).clamp(min=floor).log()
    return (student_X - squared_norm(teacher_XD).clamp(min=floor).log()) / 2


def mean_over_heads(values: Tensor, layer_weights: LayerWeights) -> Tensor:
    """[B, T]: the mean of [B, ..., T] over the middle axes, of which the first may be weighted."""
    if layer_weights is None:
        middle = tuple(range(1, values.ndim - 1))
        return values.mean(dim=middle) if middle else values
    heads = tuple(range(2, values.ndim - 1))
    return mean_over_layers(values.mean(dim=heads) if heads else values, layer_weights)


@register_kv_loss("mercator")
def mercator(
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    key_weight: float = 1.0,
    value_weight: float = 1.0,
    detach_target: bool = True,
) -> KVLossFunction:
    """`MercatorKVLoss` over traces."""
    return MercatorKVLoss(
        alpha, beta, detach_target, key_weight=key_weight, value_weight=value_weight
    ).compare_traces
