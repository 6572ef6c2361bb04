"""Activation checkpointing that keeps the key/value cache.

Between forward and backward a decoder layer then keeps its inputs, its keys and its values alone,
and computes the rest a second time in the backward pass (`torch.utils.checkpoint`, non-reentrant).
transformers' own empties the cache, since a layer that runs twice would append its keys twice. Here
each run of a layer appends to a cache of its own, which starts from what the layer had cached, and
the keys and values of the first run go into the model's cache.

Shapes: B batch, H key/value heads, S cached positions, T new ones, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

Call = Callable[..., Any]


def recompute_layers(model: PreTrainedModel) -> None:
    """Let a model's decoder layers recompute their activations in the backward pass, in place.

    Passes without gradients are as before. Losses and gradients are the same, dropout included.

    Args:
        model: a causal model whose passes write into a `DynamicCache()`, as `capture`'s do.

    Raises:
        ValueError: no layer that can be recomputed.

    Example:
        >>> recompute_layers(student.base)
    """
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"--gradient_checkpointing: {type(model).__name__} has no layers that transformers can "
            f"recompute; leave it out"
        )
    for layer in layers:
        layer.forward = partial(_forward, layer, _index_of(layer), layer.forward)


def _forward(layer: nn.Module, index: int | None, forward: Call, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    original = _in_mode(layer, forward)
    cache = next((one for one in (*args, *kwargs.values()) if isinstance(one, Cache)), None)
    if cache is None or index is None:
        return checkpoint(original, *args, use_reentrant=False, **kwargs)

    def run(before: tuple[Tensor, Tensor] | None, *args: Any, **kwargs: Any) -> Any:
        scratch = DynamicCache()
        scratch.layers = [*(DynamicLayer() for _ in range(index)), cache_layer(before)]

        def own(part: Any) -> Any:
            return scratch if part is cache else part

        output = original(*map(own, args), **{name: own(part) for name, part in kwargs.items()})
        written: Any = scratch.layers[index]
        return output, written.keys, written.values

    output, keys, values = checkpoint(
        run, _cached(cache, index), *args, use_reentrant=False, **kwargs
    )
    while len(cache.layers) <= index:
        cache.layers.append(DynamicLayer())
    cache.layers[index] = cache_layer((keys, values))
    return output


def _in_mode(layer: nn.Module, forward: Call) -> Call:
    """A layer's forward in the mode that the layer has now: a pass without dropout has none later.

    The backward pass comes when the model may be in training mode again.
    """
    then = [(part, part.training) for part in layer.modules()]

    def run(*args: Any, **kwargs: Any) -> Any:
        now = [part.training for part, _ in then]
        for part, mode in then:
            part.training = mode
        try:
            return forward(*args, **kwargs)
        finally:
            for (part, _), mode in zip(then, now):
                part.training = mode

    return run


def _cached(cache: Cache, index: int) -> tuple[Tensor, Tensor] | None:
    """A layer's keys and values [B, H, S, D]; None before its first pass."""
    layer: Any = cache.layers[index] if index < len(cache.layers) else None
    if layer is None or not layer.get_seq_length():
        return None
    return layer.keys, layer.values


def cache_layer(pair: tuple[Tensor, Tensor] | None) -> DynamicLayer:
    """One layer of a growing cache that starts from keys and values [B, H, S, D], not copied."""
    layer = DynamicLayer()
    if pair is not None:
        layer.keys, layer.values = pair
        layer.dtype, layer.device = pair[0].dtype, pair[0].device
        layer.is_initialized = True
    return layer


def _index_of(layer: nn.Module) -> int | None:
    """A decoder layer's place in the cache, as its attention has it."""
    places = (getattr(part, "layer_idx", None) for part in layer.modules())
    return next((place for place in places if isinstance(place, int)), None)
