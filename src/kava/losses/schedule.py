"""Schedules: the weights of positions and layers over the steps of a run.

Shapes: L layers of the student that are matched.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kava.names import LAYER_EMPHASES


class TrainingProgress(NamedTuple):
    """The progress of a training run."""

    step: int = 0
    """Optimiser steps done."""
    num_steps: int = 1
    """Optimiser steps of the whole run."""


def warmup_gate(step: int, num_warmup_steps: int) -> float:
    """The share of position weights in use: 0 for N steps, then linear, and 1 from step 2 N on.

    The KV loss weights all positions equally until the student's cache resembles the target's;
    then the weights are blended in over another N steps, without a jump of the loss. With N = 0
    they count from the first step.

    Args:
        step: optimiser steps that are done.
        num_warmup_steps: N.

    Example:
        >>> [warmup_gate(step, 2) for step in range(5)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if step < num_warmup_steps:
        return 0.0
    return min(1.0, (step + 1 - num_warmup_steps) / max(num_warmup_steps, 1))


def warmup_share(step: int, num_steps: int) -> float:
    """The share of a weight that counts at a step: linear from 1/N, and 1 from step N − 1 on.

    Args:
        step: optimiser steps that are done.
        num_steps: N; 0 gives 1.

    Example:
        >>> [warmup_share(step, 4) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / max(num_steps, 1))


def fading_share(step: int, num_steps: int) -> float:
    """The share of a weight that counts at a step: 1 over half of N steps, then linearly to 0.

    Args:
        step: optimiser steps that are done.
        num_steps: N, after which nothing is left.

    Example:
        >>> [fading_share(step, 4) for step in range(6)]
        [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if num_steps <= 0:
        return 0.0
    return min(1.0, max(0.0, 2 * (1 - step / num_steps)))


def gated_weights(weights: Tensor, gate: float) -> Tensor:
    """(1 − gate) · 1 + gate · weights, for weights whose mean is 1."""
    return torch.lerp(torch.ones_like(weights), weights, gate)


def annealed_layer_weights(
    emphasis: str, num_layers: int, progress: TrainingProgress, num_steps: int | None = None
) -> Tensor | None:
    """The weights of the layers at a step: unequal at first, then linearly towards equal weights.

    At the start layer l of L has the weight 2(l+1)/(L+1) in `deep_first`, and the reverse in
    `shallow_first`: the largest weight is L times the smallest, no layer is left out and the mean
    is 1. `deep_first` begins with the layers whose cache holds most of the reasoning's results,
    `shallow_first` with those that all others are computed from. This is our reading of what the
    project's earlier public code calls layer-weight annealing.

    Args:
        emphasis: a name of `LAYER_EMPHASES`.
        num_layers: L.
        progress: of the run.
        num_steps: steps after which all layers have the same weight; None takes the whole run.

    Returns:
        [L] with a mean of 1, or None if all layers have the same weight.

    Raises:
        ValueError: an unknown emphasis.

    Example:
        >>> annealed_layer_weights("deep_first", 3, TrainingProgress(0, 100)).tolist()
        [0.5, 1.0, 1.5]
        >>> annealed_layer_weights("deep_first", 3, TrainingProgress(50, 100)).tolist()
        [0.75, 1.0, 1.25]
    """
    if emphasis not in LAYER_EMPHASES:
        raise ValueError(f"emphasis={emphasis!r} is unknown; choose {', '.join(LAYER_EMPHASES)}")
    length = progress.num_steps if num_steps is None else num_steps
    done = min(progress.step / max(length, 1), 1.0)
    if emphasis == "none" or done == 1:
        return None
    ramp_L = 2 * torch.arange(1, num_layers + 1, dtype=torch.float32) / (num_layers + 1)
    return torch.lerp(ramp_L if emphasis == "deep_first" else ramp_L.flip(0), torch.ones(1), done)
