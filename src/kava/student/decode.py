"""The decoding loop over one preallocated cache, for written and latent reasoning.

Shapes: B batch, P prompt columns, N generated tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.student.cache import PreallocatedCache

Stop = Callable[[Tensor], Tensor]
"""Tokens so far [B, n] → mask [B] of the samples that end here."""

Choose = Callable[[Tensor, Tensor], Tensor]
"""Tokens so far [B, n] and logits of the next [B, V] → the next token [B]."""


@dataclass(frozen=True)
class Generation:
    """Generated tokens and their cost.

    Attributes:
        tokens: [B, N]; after a sample's end, its columns hold the filling token.
        lengths: [B], number of tokens of each sample, with its end token.
        num_passes: forward passes over the batch, with the pass over the prompt.
        readings: [B, M, V], logits of the output head at the latents, if requested.
    """

    tokens: Tensor
    lengths: Tensor
    num_passes: int
    readings: Tensor | None = None


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    cache: Any,
    logits_BV: Tensor,
    *,
    attention_mask: Tensor | None,
    next_position_B1: Tensor,
    num_passes: int,
    max_new_tokens: int,
    eos_token_id: int | Sequence[int] | None,
    stop: Stop | None = None,
    choose: Choose | None = None,
    fill: int | None = None,
) -> Generation:
    """Continue a batch from a filled cache.

    Args:
        model: the causal language model that filled `cache`.
        cache: its key/value cache.
        logits_BV: logits that predict the first token.
        attention_mask: [B, S] over the cached columns; None where none is padding.
        next_position_B1: the position id of the first token.
        num_passes: passes made so far, added to the result.
        max_new_tokens: maximum tokens to generate, at least 1.
        eos_token_id: tokens that end a sample; None generates max_new_tokens.
        stop: further ends of a sample.
        choose: takes the next tokens; None takes the likeliest.
        fill: the token behind a sample's end; None: the first end token, else 0.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    B = logits_BV.shape[0]
    tokens_BN = logits_BV.new_empty(B, max_new_tokens, dtype=torch.long)
    done_B = torch.zeros(B, dtype=torch.bool, device=logits_BV.device)
    lengths_B = torch.full((B,), max_new_tokens, device=logits_BV.device)
    if attention_mask is not None:
        cached = attention_mask.shape[1]
        ones = attention_mask.new_ones(B, max_new_tokens)
        attention_mask = torch.cat([attention_mask, ones], dim=1)
    ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id or ())
    ends_E = logits_BV.new_tensor(ends, dtype=torch.long)
    if fill is None:
        fill = ends[0] if ends else 0
    may_end = bool(ends) or stop is not None
    length = max_new_tokens
    for step in range(max_new_tokens):
        token_B = logits_BV.argmax(-1)
        if choose is not None:
            token_B = choose(tokens_BN[:, :step], logits_BV)
        if may_end:
            token_B = token_B.masked_fill(done_B, fill)
        tokens_BN[:, step] = token_B
        if may_end:
            ended_B = (token_B[:, None] == ends_E).any(1)
            if stop is not None:
                ended_B = ended_B | stop(tokens_BN[:, : step + 1])
            lengths_B = lengths_B.masked_fill(ended_B & ~done_B, step + 1)
            done_B = done_B | ended_B
        if step == max_new_tokens - 1 or (may_end and bool(done_B.all())):
            length = step + 1
            break
        output = model(
            input_ids=token_B[:, None],
            attention_mask=None
            if attention_mask is None
            else attention_mask[:, : cached + step + 1],
            position_ids=next_position_B1 + step,
            past_key_values=cache,
            use_cache=True,
        )
        num_passes += 1
        logits_BV = output.logits[:, -1]
    return Generation(tokens_BN[:, :length], lengths_B.clamp(max=length), num_passes)


@torch.no_grad()
def generate_text(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor | None = None,
    *,
    max_new_tokens: int = 256,
    eos_token_id: int | Sequence[int] | None = None,
    stop: Stop | None = None,
) -> Generation:
    """Greedy continuation of a batch of left-padded prompts [B, P]: written reasoning.

    It uses the same preallocated cache and loop as latent decoding, so that costs are comparable.
    """
    P = prompt_ids.shape[1]
    padded = prompt_mask is not None and not bool(prompt_mask.all())
    mask = prompt_mask if padded else None
    positions = torch.arange(P, device=prompt_ids.device).expand_as(prompt_ids)
    if mask is not None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = PreallocatedCache(model.config.num_hidden_layers, P + max_new_tokens)
    output = model(
        input_ids=prompt_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return decode(
        model,
        cache,
        output.logits[:, -1],
        attention_mask=mask,
        next_position_B1=positions[:, -1:] + 1,
        num_passes=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_id,
        stop=stop,
    )
