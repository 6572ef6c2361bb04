"""Test a model on a few tokens: its cache must have the properties that a trace assumes.

Class and configuration do not show whether a model handles padding, positions and a continued cache
correctly: decoders of some encoder-decoders count padding as positions, others need ids instead of
embeddings. Such models fail at the first step, or silently compute other keys.

Shapes: T tokens, L layers, H key/value heads, D head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kava.models.capture import capture
from kava.models.encoders import is_encoder

_NUM_TOKENS, _NUM_PADS, _NUM_PAST = 6, 2, 3
_NUM_LAYERS = 3
"""Only the first layers are compared: rounding grows with depth, errors show at once."""
_TOLERANCE = 0.05


@torch.no_grad()
def probe_cache(model: PreTrainedModel, name: str, *, vectors: bool = False) -> None:
    """Read six tokens alone, left-padded, and in two parts, and compare the keys.

    This takes three forwards of a few tokens in evaluation mode and does not change the model.

    Args:
        model: a causal model with weights, on its device; or an encoder, whose padding alone is
            tried.
        name: its name in messages.
        vectors: also read the second part as embeddings, like a latent student.

    Raises:
        ValueError: a forward fails, or the keys differ.

    Example:
        >>> probe_cache(load_model("kava/tiny-gpt2"), "kava/tiny-gpt2")
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        problem = _encoder_problem(model) if is_encoder(model.config) else _problem(model, vectors)
    except Exception as error:  # any exception of a model's code means that it cannot be used
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name!r} ({type(model).__name__}) cannot be read as a trace needs it: "
            f"{reason or type(error).__name__}; pass another model"
        ) from error
    finally:
        for module in training:
            module.training = True
    if problem is not None:
        raise ValueError(f"{name!r} ({type(model).__name__}) {problem}; pass another model")


def _encoder_problem(model: PreTrainedModel) -> str | None:
    ids_T = _tokens(model)
    _, alone = capture(model, ids_T[None], hidden_states=False)
    padded = torch.cat([ids_T[:_NUM_PADS], ids_T])[None]
    mask = torch.ones_like(padded)
    mask[0, :_NUM_PADS] = 0
    _, both = capture(model, padded, mask, hidden_states=False)
    if _same(both.keys[0, :, :, _NUM_PADS:], alone.keys[0]):
        return None
    return (
        "gives other keys where a text is padded on the left, so that a trace of a batch would be "
        "wrong"
    )


def _problem(model: PreTrainedModel, vectors: bool) -> str | None:
    ids_T = _tokens(model)
    _, alone = capture(model, ids_T[None], hidden_states=False, logits_to_keep=1)
    short = _NUM_TOKENS - _NUM_PADS
    batch = torch.stack([ids_T, torch.cat([ids_T[:_NUM_PADS], ids_T[:short]])])
    mask = torch.ones_like(batch)
    mask[1, :_NUM_PADS] = 0
    _, both = capture(model, batch, mask, hidden_states=False, logits_to_keep=1)
    if not _same(both.keys[1, :, :, _NUM_PADS:], alone.keys[0, :, :, :short]):
        return (
            "gives other keys where a text is padded on the left, so that a trace of a batch "
            "would be wrong"
        )
    cache = DynamicCache()
    capture(
        model,
        ids_T[None, :_NUM_PAST],
        past_key_values=cache,
        hidden_states=False,
        logits_to_keep=1,
    )
    rest: dict[str, Any] = {"input_ids": ids_T[None, _NUM_PAST:]}
    if vectors:
        rest = {"inputs_embeds": model.get_input_embeddings()(rest["input_ids"])}
    outputs, later = capture(model, **rest, past_key_values=cache)
    if not _same(later.keys[0], alone.keys[0, :, :, _NUM_PAST:]):
        given = "are given as vectors" if vectors else "follow a cache"
        return f"gives other keys where its tokens {given}, so that a trace would be wrong"
    if not vectors:
        return None
    width, made = rest["inputs_embeds"].shape[-1], outputs.hidden_states[-1].shape[-1]
    if width != made:
        return (
            f"reads embeddings of {width} numbers and makes hidden states of {made} numbers, so "
            f"that no latent can be made of them (--student explicit makes none)"
        )
    return None


def _tokens(model: PreTrainedModel) -> Tensor:
    """Six different tokens [T] from the whole vocabulary, without the padding token."""
    config = model.config.get_text_config()
    step = max(config.vocab_size // (_NUM_TOKENS + 1), 1)
    ids = torch.arange(1, _NUM_TOKENS + 1) * step % config.vocab_size
    pad = config.pad_token_id
    if isinstance(pad, int):
        ids = torch.where(ids == pad, (ids + 1) % config.vocab_size, ids)
    return ids.to(model.device)


def _same(found_LHTD: Tensor, expected_LHTD: Tensor) -> bool:
    found, expected = found_LHTD[:_NUM_LAYERS].float(), expected_LHTD[:_NUM_LAYERS].float()
    size_L = expected.abs().mean(dim=(1, 2, 3)).clamp(min=1e-12)
    error_L = (found - expected).abs().mean(dim=(1, 2, 3)) / size_L
    return bool((error_L < _TOLERANCE).all())
