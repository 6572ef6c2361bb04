"""The registry of KV losses: their names and the options of each.

A KV loss compares the student's trace with its target, position by position. Every loss is
called in the same way, so that the trainer, the ablations and the collapse guard work with any of
them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from kava.losses.positions import NumItems
from kava.losses.weights import LayerWeights
from kava.trace import KVTrace


class KVLossFunction(Protocol):
    """The signature of every KV loss.

    The loss is Σ over the valid positions of this batch of a per-position loss, divided by
    `num_items`. With `num_items` the number of valid (sample, slot) positions of the whole
    accumulated batch, the losses of micro-batches add up to the loss of the whole batch, and so
    do their gradients. The metrics are detached scalars, normalised in the same way: they add up
    too. `kv_k`, `kv_v`, `kv_cos_k` and `kv_cos_v` are always among them.

    Weights of positions [B, T] are normalised to a mean of 1 in each sample, those of layers [L]
    to a sum of 1: they change what counts in the loss, not its scale.
    """

    def __call__(
        self,
        student: KVTrace,
        target: KVTrace,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of `student` against `target`, and its metrics."""
        ...


KVLossBuilder = Callable[..., KVLossFunction]

KV_LOSSES: dict[str, KVLossBuilder] = {}


def register_kv_loss(name: str) -> Callable[[KVLossBuilder], KVLossBuilder]:
    """Register a builder under `name`; its keyword arguments are the options of the loss."""

    def register(builder: KVLossBuilder) -> KVLossBuilder:
        if name in KV_LOSSES:
            raise ValueError(f"a KV loss named {name!r} is registered already; choose another name")
        KV_LOSSES[name] = builder
        return builder

    return register


def kv_loss_options(name: str) -> tuple[str, ...]:
    """The names of the options that the KV loss `name` takes.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> kv_loss_options("mercator")
        ('alpha', 'beta', 'key_weight', 'value_weight', 'detach_target')
    """
    if name not in KV_LOSSES:
        raise ValueError(f"kv_loss={name!r} is unknown; choose from {', '.join(KV_LOSSES)}")
    return tuple(inspect.signature(KV_LOSSES[name]).parameters)


def build_kv_loss(name: str, **options: Any) -> KVLossFunction:
    """Build a KV loss by name.

    One place turns what the user typed into a loss, so an unknown name or option is refused here
    and nowhere else.

    Args:
        name: a key of `KV_LOSSES`.
        options: the options of that loss, see `kv_loss_options`.

    Raises:
        ValueError: an unknown name, an unknown option, or a value that an option does not allow.

    Example:
        >>> build_kv_loss("smooth_l1", layer_std=True).layer_std
        True
    """
    known = kv_loss_options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"kv_loss={name!r} has no option {', '.join(map(repr, unknown))}; "
            f"choose from {', '.join(known)}"
        )
    return KV_LOSSES[name](**options)
