"""A few tokens tell whether a model's cache is what a trace takes it for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RemBertConfig,
    RoFormerConfig,
)

from families import FAMILIES, build
from kava.models.probe import probe_cache
from kava.student.decode import generate_text
from kava.student.latent import LatentStudent

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
ALIBI: dict[str, PreTrainedConfig] = {
    "bloom": BloomConfig(**SMALL),
    "falcon": FalconConfig(**SMALL),
    "falcon with alibi": FalconConfig(**SMALL, alibi=True),
    "mpt": MptConfig(vocab_size=97, d_model=32, n_heads=4, n_layers=2),
}
OTHERS: dict[str, PreTrainedConfig] = {
    **ALIBI,
    "opt, other width": OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=16),
    "llama 4, chunks of 4": Llama4TextConfig(
        **SMALL,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        intermediate_size_mlp=48,
        num_local_experts=2,
        attention_chunk_size=4,
    ),
}


def of(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_family_passes_in_every_precision(
    family_model: PreTrainedModel, dtype: torch.dtype
) -> None:
    probe_cache(family_model.to(dtype), "it", vectors=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OTHERS)
def test_other_positions_and_masks_pass_think_and_answer(name: str) -> None:
    model = of(OTHERS[name])
    probe_cache(model, name, vectors=True)
    prompt = torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    written = generate_text(model, prompt, mask, max_new_tokens=4)
    alone = generate_text(model, prompt[:1, 2:], max_new_tokens=4)
    assert torch.equal(written.tokens[0], alone.tokens[0])
    student = LatentStudent.wrap(model, num_latents=2)
    output = student(prompt, mask, prompt[:, :3])
    output.logits.sum().backward()
    gradient = student.thought_embeddings.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())
    student.eval()
    with torch.no_grad():
        short = student(prompt[:1, 2:], None, prompt[:1, :3])
    torch.testing.assert_close(student(prompt, mask, prompt[:, :3]).logits[:1], short.logits)


def test_training_mode_and_the_generator_are_left_as_they_were() -> None:
    model = build(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2)).train()
    state = torch.get_rng_state()
    probe_cache(model, "it")
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def counting_columns(model: PreTrainedModel) -> PreTrainedModel:
    forward = model.forward

    def without_positions(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    model.forward = without_positions  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("model", "vectors", "complaint"),
    [
        (lambda: of(BartConfig(d_model=32, **BART)), False, "padded on the left"),
        (lambda: of(RoFormerConfig(**SMALL, **ROFORMER)), False, "padded on the left"),
        (lambda: counting_columns(FAMILIES["gpt2"]()), False, "padded on the left"),
        (lambda: of(RemBertConfig(**SMALL, **REMBERT)), True, "hidden states of 32 numbers"),
    ],
    ids=["bart", "roformer", "columns", "rembert"],
)
def test_what_would_be_wrong_or_fail_later_is_refused(
    model: Any, vectors: bool, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        probe_cache(model(), "models/x", vectors=vectors)
    assert "'models/x'" in str(caught.value)
    assert "\n" not in str(caught.value)


BART = {
    "vocab_size": 97,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "is_decoder": True,
    "is_encoder_decoder": False,
    "init_std": 0.15,
}
ROFORMER = {"is_decoder": True, "intermediate_size": 48, "initializer_range": 0.15}
REMBERT = {
    "is_decoder": True,
    "intermediate_size": 48,
    "input_embedding_size": 16,
    "output_embedding_size": 16,
}


def test_an_error_of_the_models_own_code_is_one_line() -> None:
    model = of(LlamaConfig(**SMALL, intermediate_size=48))
    model.model.layers[1].mlp = nn.Linear(31, 32)
    with pytest.raises(ValueError, match="cannot be read as a trace needs it: mat1") as caught:
        probe_cache(model, "it")
    assert "\n" not in str(caught.value)
