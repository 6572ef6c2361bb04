"""Tiny models, seeded, with random weights, one of each family that KaVa supports."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

VOCAB_SIZE = 97
SLIDING_WINDOW = 4


def build(config: PreTrainedConfig, *, attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
    """A model of `config`, its weights spread widely enough that a mistake in a mask shows."""
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.0, std=0.15)
    return model.eval()


def _config(config_class: Callable[..., PreTrainedConfig], **family: object) -> PreTrainedConfig:
    return config_class(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **family,
    )


def gpt2(**options: object) -> PreTrainedModel:
    """Learned positions, one key/value head per query head."""
    return build(_config(GPT2Config, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), **options)


def llama(**options: object) -> PreTrainedModel:
    """Rotary, two query heads to a key/value head."""
    return build(_config(LlamaConfig, num_key_value_heads=2, intermediate_size=48), **options)


def qwen2(**options: object) -> PreTrainedModel:
    """Rotary, biases on queries, keys and values, one key/value head."""
    return build(_config(Qwen2Config, num_key_value_heads=1, intermediate_size=48), **options)


def mistral(**options: object) -> PreTrainedModel:
    """A sliding window shorter than the tests' sequences."""
    config = _config(
        MistralConfig, num_key_value_heads=2, intermediate_size=48, sliding_window=SLIDING_WINDOW
    )
    return build(config, **options)


def gemma(**options: object) -> PreTrainedModel:
    """A head dimension of 16 where hidden size over heads is 8."""
    config = _config(GemmaConfig, num_key_value_heads=1, head_dim=16, intermediate_size=48)
    return build(config, **options)


def gpt_neox(**options: object) -> PreTrainedModel:
    """Rotary on half of each head, queries, keys and values in one matrix."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    return build(_config(GPTNeoXConfig, intermediate_size=48, rope_parameters=rope), **options)


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "gpt2": gpt2,
    "llama": llama,
    "qwen2": qwen2,
    "mistral": mistral,
    "gemma": gemma,
    "gpt_neox": gpt_neox,
}
