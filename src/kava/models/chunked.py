"""Read a long text with a frozen model in chunks, each over the cache of those before.

Activations, masks and attention scores are then those of one chunk: a chunk's length times the
text's, never the text's squared. Keys, values, queries, hidden states and logits are those of one
forward over the whole text, to rounding: a causal model's position depends on earlier ones alone.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T positions, D head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from kava.models.capture import capture, check_attention, position_ids_from_mask, trace_from_cache
from kava.models.encoders import is_encoder
from kava.models.rotary import length_of_short_texts
from kava.trace import KVTrace


def capture_in_chunks(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    chunk: int | None,
    queries: bool = False,
    hidden_states: bool = True,
    logits_to_keep: int | Tensor = 0,
) -> tuple[Any, KVTrace]:
    """Read texts chunk by chunk, and return what `kava.capture` of the whole texts returns.

    Sliding windows, attention chunks, sinks and padding on either side are the model's own: the
    cache keeps every position, and each chunk's mask covers the cache.

    Args:
        model: a causal model in evaluation mode.
        input_ids: [B, T].
        attention_mask: [B, T], nonzero at valid positions; None: all are valid.
        segment_ids: [B, T], recorded in the trace.
        chunk: columns of a forward; None, or T and more: one forward.
        queries: record queries, too.
        hidden_states: return hidden states, too.
        logits_to_keep: as in `kava.capture`; the head reads these columns alone.

    Returns:
        (outputs, trace): `logits`, `hidden_states` and `past_key_values`, and a trace of length T.

    Raises:
        ValueError: a chunk below 1, an encoder, a text that is longer than those of the model's
            short rotary frequencies, or as `kava.capture`.

    Example:
        >>> outputs, trace = capture_in_chunks(teacher, input_ids, mask, chunk=1024)
    """
    check_chunk(model, chunk, attention_mask, input_ids)
    T = input_ids.shape[1]
    if chunk is None or chunk >= T:
        return capture(
            model,
            input_ids,
            attention_mask,
            segment_ids,
            queries=queries,
            hidden_states=hidden_states,
            logits_to_keep=logits_to_keep,
        )
    if queries and not model.training:
        # the first chunk may hold nothing but the padding of the sample that would be compared
        check_attention(model)
    wanted_T = columns_of_logits(logits_to_keep, T).to(input_ids.device)
    cache = DynamicCache()
    parts: list[tuple[Tensor, Any]] = []
    recorded: Tensor | None = None
    form = None
    for start, stop in chunks_of(T, chunk):
        here = wanted_T[start:stop].nonzero()[:, 0]
        outputs, trace = capture(
            model,
            input_ids[:, start:stop],
            None if attention_mask is None else attention_mask[:, :stop],
            past_key_values=cache,
            queries=queries,
            hidden_states=hidden_states,
            logits_to_keep=here if len(here) else 1,
        )
        logits = outputs.logits if len(here) else outputs.logits[:, :0]
        parts.append((logits, outputs.hidden_states))
        if trace.queries is not None:
            recorded = _write(recorded, trace.queries, start, T)
        form = trace.attention
    logits, hidden = zip(*parts)
    whole = trace_from_cache(
        cache,
        mask=attention_mask,
        positions=_positions(input_ids, attention_mask),
        segment_ids=segment_ids,
        queries=recorded,
        attention=form,
    )
    return (
        CausalLMOutputWithPast(
            logits=torch.cat(logits, dim=1),
            hidden_states=(
                tuple(torch.cat(layer, dim=1) for layer in zip(*hidden)) if hidden_states else None
            ),
            past_key_values=cache,
        ),
        whole,
    )


def check_chunk(
    model: PreTrainedModel, chunk: int | None, attention_mask: Tensor | None, input_ids: Tensor
) -> None:
    """Refuse what cannot be read in chunks.

    Raises:
        ValueError: a chunk below 1, an encoder, or rotary frequencies that depend on the length of
            the text, and a text beyond their short ones.
    """
    if chunk is None:
        return
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk={chunk!r} must be a whole number of positions, 1 or more")
    if is_encoder(model.config):
        raise ValueError(
            f"{type(model).__name__} is an encoder, whose positions look at later ones, and chunks "
            f"of {chunk:,} positions hide these: read it in one go (leave --capture_chunk out)"
        )
    short = length_of_short_texts(model.config)
    if short is None or chunk >= input_ids.shape[1]:
        return
    longest = (
        input_ids.shape[1] if attention_mask is None else int(attention_mask.bool().sum(1).max())
    )
    if longest > short:
        raise ValueError(
            f"the rotary frequencies of {type(model).__name__} change for texts above {short:,} "
            f"positions, and a text has {longest:,}, so that its first chunks would be turned as "
            f"a short text is: read it in one go (leave --capture_chunk out), or shorten it"
        )


def chunks_of(length: int, chunk: int) -> Iterator[tuple[int, int]]:
    """First column, and the one after the last, of each chunk."""
    for start in range(0, length, chunk):
        yield start, min(start + chunk, length)


def columns_of_logits(logits_to_keep: int | Tensor, length: int) -> Tensor:
    """[T] bool: the columns whose logits are asked for.

    Raises:
        ValueError: columns that are not ascending, whose order chunks would not keep.

    Example:
        >>> columns_of_logits(2, 4).tolist()
        [False, False, True, True]
    """
    wanted_T = torch.zeros(length, dtype=torch.bool)
    if isinstance(logits_to_keep, Tensor):
        columns = logits_to_keep.cpu()
        if bool((columns.diff() <= 0).any()):
            raise ValueError("logits_to_keep must be ascending columns where chunks are read")
        wanted_T[columns] = True
        return wanted_T
    wanted_T[-min(logits_to_keep, length) or None :] = True
    return wanted_T


def _write(whole: Tensor | None, part: Tensor, start: int, length: int) -> Tensor:
    """A chunk's [B, L, Hq, R, D] in its place in [B, L, Hq, T, D], without a second copy of it."""
    if part.requires_grad:
        return part if whole is None else torch.cat([whole, part], dim=3)
    if whole is None:
        whole = part.new_empty(*part.shape[:3], length, part.shape[4])
    whole[:, :, :, start : start + part.shape[3]] = part
    return whole


def _positions(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is not None:
        return position_ids_from_mask(attention_mask)
    return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
