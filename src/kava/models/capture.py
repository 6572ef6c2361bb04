"""Capture the key/value trace of one forward of a Hugging Face causal model.

Logits, hidden states, keys and values come from the same pass, with gradients if enabled. The cache
is a `DynamicCache()` built without a config, because the cache that a model builds itself drops
positions outside a sliding window.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T positions, D head dim.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kava.attention import AttentionForm
from kava.models.encoders import capture_encoder, is_encoder
from kava.models.limits import check_readable
from kava.models.queries import QueryRecorder, record_queries, refuse_checkpointing
from kava.models.rebuild import check_row, with_queries
from kava.models.rotary import forget_longer_texts
from kava.models.traceable import check_traceable
from kava.trace import KVTrace, iter_past

__all__ = [
    "QueryRecorder",
    "capture",
    "check_attention",
    "position_ids_from_mask",
    "rebuilds_attention",
    "record_queries",
    "trace_from_cache",
]

_PROVED: WeakSet[PreTrainedModel] = WeakSet()
"""Models whose attention was rebuilt correctly from a trace."""
_PROBE_LENGTH = 8


def position_ids_from_mask(mask_BT: Tensor) -> Tensor:
    """Position ids that count only valid tokens, so that left padding has no effect.

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
    attention: AttentionForm | None = None,
) -> KVTrace:
    """Make a trace of columns start:stop of a model's cache.

    Every layer is sliced before the layers are stacked, so that a few latent positions after a long
    prompt cost a copy of only these positions.

    Args:
        cache: a Hugging Face `Cache`, or a sequence of (keys, values) per layer, [B, H, S, D].
        start: first column of the cache, as in a Python slice.
        stop: the column after the last, as in a Python slice.
        mask: [B, T] over the T = stop − start columns; also the three below.
        positions: [B, T].
        segment_ids: [B, T].
        queries: [B, L, Hq, T, D].
        attention: form of the model's attention weights.

    Raises:
        ValueError: an empty cache, layers of different shapes, or a part of the wrong shape.

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
        attention=attention,
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
    """Run one forward and return its outputs with the key/value trace.

    A distillation step needs logits, hidden states, keys and values of the same pass; a second
    forward would double the cost and, with dropout, compare two different networks.

    Args:
        model: any causal Hugging Face model, or an encoder of the BERT or T5 family
            (`kava.models.encoders`), which reads `input_ids` whole and has no logits. Wrap the call
            in `torch.no_grad()` for a teacher.
        input_ids: [B, T].
        attention_mask: [B, T], or [B, P + T] with `past_key_values` of length P; nonzero at
            valid positions, padding on either side. None: all are valid.
        segment_ids: [B, T] of `kava.trace.Segment`, recorded in the trace.
        inputs_embeds: [B, T, width], instead of `input_ids`.
        position_ids: [B, T]; default: the number of valid positions before each.
        past_key_values: a cache to continue from, which grows by T; the trace covers the new
            positions only. Build it as `DynamicCache()`, without a config.
        queries: also record post-rotary queries and the form of attention. The first time for a
            model in evaluation mode, a row of its attention is recomputed from the trace and
            compared.
        hidden_states: return all hidden states in the outputs.
        logits_to_keep: as in transformers: compute the head only at the last positions, or at the
            given ones; 0 for all.

    Returns:
        (outputs, trace): the model's outputs (`logits` [B, T, V], `hidden_states`: L + 1 of
        [B, T, width], `past_key_values`), and a `KVTrace` of length T.

    Raises:
        ValueError: an encoder-decoder, a model with layers that keep no keys and values,
            activation checkpointing in training, parts that do not fit together, a position or
            (of ids on the CPU) a token that the model has no row for, or, with `queries`, a
            family whose attention cannot be rebuilt from its queries and keys.

    Example:
        >>> outputs, trace = capture(model, input_ids, attention_mask)
        >>> trace.keys.shape  # [B, L, H, T, D]
    """
    refuse_checkpointing(model)
    if is_encoder(model.config) and not model.config.is_encoder_decoder:
        if input_ids is None or past_key_values is not None or queries:
            raise ValueError(
                f"{type(model).__name__} is an encoder: it reads input_ids whole, without a cache, "
                f"and its queries are not recorded"
            )
        return capture_encoder(
            model, input_ids, attention_mask, segment_ids, hidden_states=hidden_states
        )
    check_traceable(model)
    tokens = inputs_embeds if input_ids is None else input_ids
    if tokens is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError("give either input_ids or inputs_embeds")
    axes = 2 if inputs_embeds is None else 3
    if not isinstance(tokens, Tensor) or tokens.ndim != axes or not tokens.numel():
        wanted = "input_ids must be [B, T]" if axes == 2 else "inputs_embeds must be [B, T, width]"
        found = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"{wanted} with at least one sample and position, got {found}")
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
    last = None
    if position_ids is None and attention_mask is None:
        last = past + T - 1
    if position_ids is None:
        position_ids = (
            position_ids_from_mask(attention_mask)[:, past:]
            if attention_mask is not None
            else torch.arange(past, past + T, device=tokens.device).expand(tokens.shape[0], T)
        )
    if last is None and position_ids.device.type == "cpu":
        last = int(position_ids.max())
    check_readable(model, input_ids, last)
    if not past:
        forget_longer_texts(model)
    # with dropout the weights that were used differ from the recomputed ones
    proves = queries and not past and not model.training and model not in _PROVED
    with record_queries(model) if queries else nullcontext() as recorder:
        if recorder is not None and proves:
            recorder.watched = 0, _last_valid(attention_mask, T)
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
    )
    if recorder is not None:
        trace = with_queries(model, trace, recorder)
        if recorder.watched is not None:
            check_row(model, trace, *recorder.watched, recorder.outputs)
            _PROVED.add(model)
    return outputs, trace


def _last_valid(attention_mask: Tensor | None, length: int) -> int:
    """The last valid column of a batch's first sample."""
    if attention_mask is None:
        return length - 1
    return int(attention_mask[0].nonzero()[-1])


@torch.no_grad()
def check_attention(model: PreTrainedModel, reason: str | None = None) -> None:
    """Refuse a model whose attention weights cannot be rebuilt from a trace.

    Called before a run whose eviction or loss uses attention, so that it does not fail at its first
    step. The model reads two short texts, one of them padded.

    Args:
        model: any causal Hugging Face model; it is run in evaluation mode.
        reason: what needs attention, such as a flag, for the message.

    Raises:
        ValueError: a family whose queries cannot be recorded, or whose attention differs.

    Example:
        >>> check_attention(teacher)
    """
    if model in _PROVED:
        return
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        vocabulary = model.config.get_text_config().vocab_size
        ids = torch.arange(2 * _PROBE_LENGTH, device=model.device).view(2, -1) % vocabulary
        mask = torch.ones_like(ids)
        mask[0, :2] = 0
        capture(model, ids, mask, queries=True, hidden_states=False, logits_to_keep=1)
    except ValueError as error:
        if reason is None:
            raise
        raise ValueError(f"{reason} looks at attention, but {error}") from error
    finally:
        for module in training:
            module.training = True


def rebuilds_attention(model: PreTrainedModel) -> bool:
    """Whether attention weights can be rebuilt from a trace of `model`; see `check_attention`."""
    try:
        check_attention(model)
    except ValueError:
        return False
    return True
