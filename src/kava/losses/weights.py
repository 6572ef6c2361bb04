"""Weights of layers and of positions: they change what counts in a loss, not its scale.

Layer weights are normalised to a sum of 1 over the layers, position weights to a mean of 1 over
the valid positions of each sample, so that equal weights change nothing and no sample's weights
depend on the rest of its batch.

Shapes: B batch, L layers, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LayerWeights = Tensor | Sequence[float] | None


def mean_over_layers(values_BLT: Tensor, layer_weights: LayerWeights) -> Tensor:
    """[B, T]: the mean of `values_BLT` over its layers, weighted where there are [L] weights.

    Raises:
        ValueError: another number of weights than layers, or weights below 0 or all 0.
    """
    if layer_weights is None:
        return values_BLT.mean(dim=1)
    weights_L = unit_sum_weights(layer_weights, values_BLT.shape[1]).to(values_BLT.device)
    return (values_BLT * weights_L[:, None]).sum(dim=1)


def unit_sum_weights(layer_weights: LayerWeights, num_layers: int) -> Tensor:
    """[L] in float32: one weight per layer, with a sum of 1; equal ones for None.

    Raises:
        ValueError: another number of weights than layers, or weights below 0 or all 0.

    Example:
        >>> unit_sum_weights([3.0, 1.0], 2).tolist()
        [0.75, 0.25]
    """
    if layer_weights is None:
        return torch.full((num_layers,), 1 / num_layers)
    weights_L = torch.as_tensor(layer_weights, dtype=torch.float32)
    if weights_L.shape != (num_layers,):
        raise ValueError(
            f"layer_weights has {weights_L.numel()} weights for {num_layers} layers; "
            f"give one per layer of the student"
        )
    check_weights("layer_weights", weights_L.tolist())
    return weights_L / weights_L.sum()


def check_weights(name: str, weights: Sequence[float]) -> None:
    """Refuse weights of which one is negative or not finite, or none is positive.

    Raises:
        ValueError: such weights.
    """
    # each by itself: the least of numbers with a NaN among them depends on their order
    if not (all(0 <= one < math.inf for one in weights) and any(weights)):
        raise ValueError(f"{name} {tuple(weights)} must be finite, 0 or more, and not all 0")


def weigh_positions(
    values_BT: Tensor, position_weights: Tensor | None, mask_BT: Tensor | None
) -> Tensor:
    """`values_BT` times the weight of its position, if there are weights.

    Args:
        values_BT: [B, T].
        position_weights: [B, T], 0 or more; see `unit_mean_weights`.
        mask_BT: [B, T] bool, or None where all positions are valid.

    Raises:
        ValueError: weights of another shape.
    """
    if position_weights is None:
        return values_BT
    valid_BT = torch.ones_like(values_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
    return values_BT * unit_mean_weights(position_weights, valid_BT)


def unit_mean_weights(weights_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """`weights_BT` scaled to a mean of 1 over each sample's valid positions, detached.

    Weights that are all 0 stay so.

    Raises:
        ValueError: weights of another shape.
    """
    if weights_BT.shape != valid_BT.shape:
        raise ValueError(
            f"position_weights must be {list(valid_BT.shape)}, got {tuple(weights_BT.shape)}"
        )
    weights_BT = weights_BT.detach().float().masked_fill(~valid_BT, 0.0)
    total_B1 = weights_BT.sum(dim=1, keepdim=True)
    count_B1 = valid_BT.sum(dim=1, keepdim=True)
    return weights_BT * count_B1 / torch.where(total_B1 > 0, total_B1, 1.0)
