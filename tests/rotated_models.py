"""Small models that rotate, and the keys that their projections gave."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    PreTrainedModel,
)

from families import VOCAB_SIZE
from kava.models.capture import capture
from kava.trace import KVTrace

T = 9


def tokens() -> Tensor:
    return torch.randint(1, VOCAB_SIZE, (2, T), generator=torch.Generator().manual_seed(0))


def left_padded_mask() -> Tensor:
    return torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def pre_rotation_keys(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[KVTrace, Tensor]:
    """A trace, and what the key projections gave in the same forward, [B, L, H, T, D]."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        outputs.append(output)

    name = "query_key_value" if model.config.model_type == "gpt_neox" else "k_proj"
    hooks = [
        module.register_forward_hook(keep)
        for path, module in model.named_modules()
        if path.endswith(name)
    ]
    with torch.no_grad():
        _, trace = capture(model, ids, mask)
    for hook in hooks:
        hook.remove()
    B, _, H, length, D = trace.keys.shape
    if name == "query_key_value":
        layers = [out.view(B, length, H, 3 * D)[..., D : 2 * D] for out in outputs]
    else:
        layers = [out.view(B, length, H, D) for out in outputs]
    return trace, torch.stack(layers, dim=1).transpose(2, 3)


def llama_config(**options: object) -> LlamaConfig:
    return LlamaConfig(**SIZES | {"intermediate_size": 48, "num_key_value_heads": 2} | options)


SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


KINDS = ["sliding_attention", "sliding_attention", "full_attention"]
