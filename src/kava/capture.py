"""From one forward of a Hugging Face causal model to its key/value trace.

Logits, hidden states, keys and values come out of the same pass, with gradients when the model
has them. The cache is a `DynamicCache()` built without a config: the one a model builds for
itself drops positions beyond a sliding window. Post-rotary queries, which no cache holds, are
seen by an attention function that records them and then calls the one that was set.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T positions, D head dim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel

from kava.callable_module import make_callable
from kava.rope import forget_longer_texts
from kava.trace import KVTrace, iter_past
from kava.traceable import check_traceable

_RECORDING = "kava_recording_"
_RECORDERS: WeakKeyDictionary[nn.Module, QueryRecorder] = WeakKeyDictionary()


def position_ids_from_mask(mask_BT: Tensor) -> Tensor:
    """Position ids that count valid tokens only, so that padding on the left changes nothing.

    Args:
        mask_BT: [B, T], nonzero at valid positions.

    Returns:
        [B, T] long: cumsum(mask) − 1, clamped at 0.

    Example:
        >>> position_ids_from_mask(torch.tensor([[0, 0, 1, 1]]))
        tensor([[0, 0, 0, 1]])
    """
    return (mask_BT.long().cumsum(-1) - 1).clamp(min=0)


def trace_from_cache(
    cache: Any,
    start: int | None = None,
    stop: int | None = None,
    *,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
    segment_ids: Tensor | None = None,
    queries: Tensor | None = None,
) -> KVTrace:
    """Columns start:stop of a model's cache as a trace.

    Every layer is sliced before the layers are stacked, so that a few latent positions behind a
    long prompt cost a copy of these positions alone.

    Args:
        cache: a Hugging Face `Cache`, or a sequence of (keys, values) per layer, [B, H, S, D].
        start: first column of the cache, as in a Python slice.
        stop: the column after the last, as in a Python slice.
        mask: [B, T] of the T = stop − start columns taken; likewise the three below.
        positions: [B, T].
        segment_ids: [B, T].
        queries: [B, L, Hq, T, D].

    Raises:
        ValueError: an empty cache, layers of different shapes, or a part that does not fit.

    Example:
        >>> cache = model(input_ids, use_cache=True).past_key_values
        >>> latents = trace_from_cache(cache, start=prompt_length)
    """
    keys, values = [], []
    for key, value in iter_past(cache):
        keys.append(key[:, :, start:stop])
        values.append(value[:, :, start:stop])
    if not keys:
        raise ValueError(
            "the cache holds no layers: the model wrote no keys and values into it "
            "(a recurrent model, use_cache=False, or activation checkpointing)"
        )
    shapes = {tuple(part.shape) for part in keys}
    if len(shapes) > 1:
        raise ValueError(
            f"layers differ in shape ({sorted(shapes)}): a cache that drops positions beyond a "
            f"sliding window cannot be traced; pass past_key_values=DynamicCache(), without a "
            f"config, to the model"
        )
    return KVTrace(
        torch.stack(keys, dim=1),
        torch.stack(values, dim=1),
        queries=queries,
        mask=None if mask is None else mask.bool(),
        segment_ids=segment_ids,
        positions=positions,
    )


class QueryRecorder:
    """The post-rotary queries of every forward made inside `record_queries`.

    Attributes:
        forwards: one list per forward, in order, of one [B, Hq, T, D] tensor per layer. A new
            list starts when a layer is seen again.
    """

    def __init__(self) -> None:
        self.forwards: list[list[Tensor]] = []
        self._seen: set[int] = set()

    def add(self, layer: nn.Module, query_BHTD: Tensor) -> None:
        """Append the queries of `layer` to the forward that is going on."""
        if not self.forwards or id(layer) in self._seen:
            self.forwards.append([])
            self._seen.clear()
        self._seen.add(id(layer))
        self.forwards[-1].append(query_BHTD)

    def stacked(self, forward: int = -1) -> Tensor:
        """The queries of one forward as [B, L, Hq, T, D]; by default of the latest.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.forwards:
            raise ValueError(
                "no queries were recorded: run the model inside the `record_queries` block, "
                "without a fused attention that bypasses transformers' AttentionInterface"
            )
        return torch.stack(self.forwards[forward], dim=1)

    def clear(self) -> None:
        """Forget all forwards, and with them the graphs that their queries hold."""
        self.forwards.clear()
        self._seen.clear()


def _delegate(module: nn.Module, implementation: str) -> Callable[..., Any]:
    """The attention function that `module` would have called under `implementation`.

    Eager attention is a function of each modeling file, and a modeling file may override the
    shared table, so both are looked up in the file that defines the module's class.
    """
    for cls in type(module).__mro__:
        scope = vars(sys.modules[cls.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in scope and "eager_attention_forward" in scope:
            return scope["ALL_ATTENTION_FUNCTIONS"].get_interface(
                implementation, scope["eager_attention_forward"]
            )
    raise ValueError(
        f"the queries of {type(module).__name__} cannot be recorded: its modeling file does not "
        f"use transformers' attention interface"
    )


def _register(implementation: str) -> str:
    name = _RECORDING + implementation

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        # A second model that shares the config comes by here too: it is not recorded.
        recorder = _RECORDERS.get(module)
        if recorder is not None:
            recorder.add(module, query)
        function = _delegate(module, implementation)
        # Flash attention picks its kernel by the name in the config.
        config: Any = module.config
        config._attn_implementation_internal = implementation
        try:
            return function(module, query, key, value, *args, **kwargs)
        finally:
            config._attn_implementation_internal = name

    AttentionInterface.register(name, attention)
    masks = AttentionMaskInterface()
    if implementation in masks:
        # Without a mask function of the same name the padding mask would not arrive.
        AttentionMaskInterface.register(name, masks[implementation])
    return name


@contextmanager
def record_queries(model: nn.Module) -> Iterator[QueryRecorder]:
    """Record the post-rotary queries of every forward of `model` inside the block.

    Keys and values stay in a cache, queries do not; structural losses and attention-based
    eviction need them. The attention that was set (sdpa, eager, flash) still computes the result.

    Args:
        model: a Hugging Face model, or a module that holds one.

    Yields:
        A `QueryRecorder`: `recorder.forwards[i][layer]` is [B, Hq, T, D] with gradients, and
        `recorder.stacked(i)` is [B, L, Hq, T, D]. Its tensors outlive the block.

    Raises:
        ValueError: the model holds no attention that can be recorded, is being recorded
            already, or would recompute its layers under activation checkpointing.

    Example:
        >>> with record_queries(student) as recorder:
        ...     for _ in range(num_latents):
        ...         outputs = student(inputs_embeds=latent, past_key_values=cache)
        >>> torch.cat([recorder.stacked(i) for i in range(num_latents)], dim=3)
    """
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not models:
        raise ValueError(f"{type(model).__name__} holds no Hugging Face model to record")
    for inner in models:
        _refuse_checkpointing(inner)
        if not inner._can_set_attn_implementation():
            raise ValueError(
                f"the queries of {type(inner).__name__} cannot be recorded: it does not use "
                f"transformers' attention interface"
            )
    recorder = QueryRecorder()
    modules = list(model.modules())
    if any(module in _RECORDERS for module in modules):
        raise ValueError(f"{type(model).__name__} is being recorded already: do not nest the block")
    configs = {id(inner.config): inner.config for inner in models}.values()
    saved = [(config, config._attn_implementation) for config in configs]
    try:
        for config, implementation in saved:
            config._attn_implementation_internal = _register(implementation or "eager")
        _RECORDERS.update(dict.fromkeys(modules, recorder))
        yield recorder
    finally:
        for module in modules:
            _RECORDERS.pop(module, None)
        for config, implementation in saved:
            config._attn_implementation_internal = implementation


def _refuse_checkpointing(model: PreTrainedModel) -> None:
    if model.training and model.is_activation_checkpointing:
        raise ValueError(
            f"{type(model).__name__} has activation (gradient) checkpointing on, which empties "
            f"its key/value cache in training: call model.gradient_checkpointing_disable(), or "
            f"checkpoint whole steps with torch.utils.checkpoint"
        )


def capture(
    model: PreTrainedModel,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    inputs_embeds: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
    queries: bool = False,
    hidden_states: bool = True,
    logits_to_keep: int | Tensor = 0,
) -> tuple[Any, KVTrace]:
    """Run one forward and return its outputs together with the key/value trace.

    A distillation step needs logits, hidden states and keys and values of the same pass; a
    second forward would double its cost and, under dropout, compare two different networks.

    Args:
        model: any causal Hugging Face model. Wrap the call in `torch.no_grad()` for a teacher.
        input_ids: [B, T].
        attention_mask: [B, T], or [B, P + T] with `past_key_values` of length P; nonzero at
            valid positions, padding on either side. None: all are valid.
        segment_ids: [B, T] of `kava.trace.Segment`, recorded in the trace.
        inputs_embeds: [B, T, width], in place of `input_ids`.
        position_ids: [B, T]; default: the number of valid positions before each.
        past_key_values: a cache to continue from, which grows by T; the trace covers the new
            positions only. Build it as `DynamicCache()`, without a config.
        queries: record post-rotary queries too.
        hidden_states: return all hidden states in the outputs.
        logits_to_keep: as in transformers: compute the head at the last positions, or at those
            given, only; 0 for all.

    Returns:
        (outputs, trace): the model's outputs (`logits` [B, T, V], `hidden_states`: L + 1 of
        [B, T, width], `past_key_values`), and a `KVTrace` of length T.

    Raises:
        ValueError: an encoder-decoder, a model with layers that keep no keys and values,
            activation checkpointing in training, or parts that do not fit together.

    Example:
        >>> outputs, trace = capture(model, input_ids, attention_mask)
        >>> trace.keys.shape  # [B, L, H, T, D]
    """
    _refuse_checkpointing(model)
    check_traceable(model)
    tokens = inputs_embeds if input_ids is None else input_ids
    if tokens is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError("give either input_ids or inputs_embeds")
    T = tokens.shape[1]
    cache = DynamicCache() if past_key_values is None else past_key_values
    if any(cache.is_sliding):
        raise ValueError(
            "past_key_values drops positions beyond its sliding window: build it as "
            "DynamicCache(), without the model's config"
        )
    past = cache.get_seq_length()
    if attention_mask is not None and attention_mask.shape != (tokens.shape[0], past + T):
        raise ValueError(
            f"attention_mask must be [{tokens.shape[0]}, {past + T}] (cached and new "
            f"positions), got {tuple(attention_mask.shape)}"
        )
    if position_ids is None:
        position_ids = (
            position_ids_from_mask(attention_mask)[:, past:]
            if attention_mask is not None
            else torch.arange(past, past + T, device=tokens.device).expand(tokens.shape[0], T)
        )
    if not past:
        forget_longer_texts(model)
    with record_queries(model) if queries else nullcontext() as recorder:
        outputs = model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=hidden_states,
            return_dict=True,
            logits_to_keep=logits_to_keep,
        )
    trace = trace_from_cache(
        cache,
        past,
        past + T,
        mask=None if attention_mask is None else attention_mask[:, past:],
        positions=position_ids,
        segment_ids=segment_ids,
        queries=None if recorder is None else recorder.stacked(),
    )
    return outputs, trace


make_callable(__name__, capture)
