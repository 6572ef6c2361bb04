"""Keys out of their rotation are the model's own pre-rotation keys, and go back again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    DeepseekV3Config,
    DynamicCache,
    Gemma3TextConfig,
    GlmConfig,
    GPTJConfig,
    SmolLM3Config,
)

from families import FAMILIES, VOCAB_SIZE, build
from kava.models.capture import capture
from kava.models.load import load_model
from kava.models.rotary import rotary_of
from kava.rope import rotate, rotate_trace, unrotate_trace
from rotated_models import (
    KINDS,
    SIZES,
    T,
    left_padded_mask,
    llama_config,
    pre_rotation_keys,
    tokens,
)

ROTARY_FAMILIES = [name for name in FAMILIES if name != "gpt2"]


@pytest.mark.parametrize("family", ROTARY_FAMILIES)
def test_unrotated_keys_are_the_models_own(family):
    model = FAMILIES[family]()
    trace, expected = pre_rotation_keys(model, tokens(), left_padded_mask())
    rotary = rotary_of(model)
    assert not torch.allclose(trace.keys, expected, atol=1e-2)
    plain = unrotate_trace(trace, rotary)
    torch.testing.assert_close(plain.keys, expected, atol=1e-5, rtol=1e-4)
    again = rotate_trace(plain, rotary)
    torch.testing.assert_close(again.keys, trace.keys, atol=1e-5, rtol=1e-5)
    assert (trace.rotated, plain.rotated, again.rotated) == (True, False, True)


def test_learned_positions_have_no_rotation():
    model = FAMILIES["gpt2"]()
    assert rotary_of(model) is None
    _, trace = capture(model, tokens())
    plain = unrotate_trace(trace, None)
    assert torch.equal(plain.keys, trace.keys)
    assert not plain.rotated
    assert rotate_trace(plain, None).rotated


def test_a_partial_rotation_leaves_the_other_dims():
    rotary = rotary_of(FAMILIES["gpt_neox"]())
    assert rotary.rotary_dim == 4
    x = torch.randn(1, 3, 4, T, 8, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, torch.arange(T)[None], rotary)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.allclose(turned[..., 1:, :4], x[..., 1:, :4])


def test_gathered_keys_unrotate_at_the_positions_they_came_from():
    model = FAMILIES["llama"]()
    with torch.no_grad():
        _, trace = capture(model, tokens(), queries=True)
    rotary = rotary_of(model)
    shape = (2, trace.num_layers, trace.num_heads, 4)
    indices = torch.randint(0, T, shape, generator=torch.Generator().manual_seed(0)).sort(-1)[0]
    found = unrotate_trace(trace.gather(indices, scope="head"), rotary)
    expected = unrotate_trace(trace, rotary).gather(indices)
    torch.testing.assert_close(found.keys, expected.keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.queries, expected.queries, atol=1e-5, rtol=1e-4)


def test_rotated_to_other_positions_keys_are_those_of_a_shifted_text():
    model = FAMILIES["llama"]()
    rotary = rotary_of(model)
    there = torch.arange(20, 20 + T).expand(2, T)
    with torch.no_grad():
        _, here = capture(model, tokens(), queries=True)
        _, shifted = capture(model, tokens(), position_ids=there, queries=True)
    moved = rotate_trace(unrotate_trace(here, rotary), rotary, there)
    torch.testing.assert_close(moved.keys, shifted.keys, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.queries, shifted.queries, atol=1e-4, rtol=1e-4)
    assert torch.equal(moved.positions, there)
    assert torch.equal(moved.values, here.values)


@pytest.mark.parametrize("rope_type", ["linear", "yarn", "llama3", "dynamic", "longrope"])
def test_scaled_rotations_are_read_with_their_attention_scaling(rope_type):
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0}
    if rope_type != "linear":
        rope["original_max_position_embeddings"] = 32
    if rope_type == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    model = build(llama_config(rope_parameters=rope))
    rotary = rotary_of(model)
    assert (rotary.attention_scaling > 1) == (rope_type in ("yarn", "longrope"))
    assert (rotary.num_positions is None) == (rope_type not in ("dynamic", "longrope"))
    trace, expected = pre_rotation_keys(model, tokens(), left_padded_mask())
    found = unrotate_trace(trace, rotary).keys
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config_class", "options", "layout", "still"),
    [
        (CohereConfig, {}, "interleaved", []),
        (GlmConfig, {"head_dim": 8}, "interleaved", []),
        (Gemma3TextConfig, {"head_dim": 16, "layer_types": KINDS}, "half", []),
        (SmolLM3Config, {"no_rope_layers": [1, 0, 1]}, "half", [1]),
    ],
)
def test_other_layouts_and_layers_of_their_own_are_read_off_the_model(
    config_class, options, layout, still
):
    model = build(config_class(**SIZES, intermediate_size=48, num_key_value_heads=2, **options))
    rotary = rotary_of(model)
    assert rotary.layout == layout
    frequencies = rotary.inv_freq.expand(3, -1)
    assert [index for index, row in enumerate(frequencies) if not row.any()] == still
    if config_class is Gemma3TextConfig:
        assert torch.equal(frequencies[0], frequencies[1])
        assert not torch.equal(frequencies[1], frequencies[2])
    # The first token of each row alone: what it is does not depend on where it stands.
    near, far = (torch.full((2, 1), position) for position in (2, 11))
    with torch.no_grad():
        _, here = capture(model, tokens()[:, :1], position_ids=near)
        _, there = capture(model, tokens()[:, :1], position_ids=far)
    moved = rotate_trace(unrotate_trace(here, rotary), rotary, far)
    torch.testing.assert_close(moved.keys, there.keys, atol=1e-4, rtol=1e-4)


def test_a_rotation_is_read_in_half_precision_and_with_outlier_dims():
    model = FAMILIES["qwen2"]()
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.k_proj.bias)
        layer.self_attn.k_proj.bias.data[3] = 200.0
    rotary = rotary_of(model.bfloat16())
    assert rotary.layout == "half"
    assert rotary.inv_freq.shape == (4,)
    assert rotary.inv_freq.dtype == torch.float32


def test_a_rotation_is_read_where_the_padding_token_embeds_as_zero():
    model = FAMILIES["llama"]()
    model.get_input_embeddings().weight.data[model.config.pad_token_id] = 0.0
    assert rotary_of(model).rotary_dim == 8


def test_reading_a_rotation_leaves_the_model_as_it_was():
    model = FAMILIES["llama"]().train()
    model.lm_head.eval()
    rotary_of(model)
    assert model.model.training
    assert not model.lm_head.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rotations_that_cannot_be_described_are_refused():
    gptj = GPTJConfig(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)
    with pytest.raises(ValueError, match="GPTJForCausalLM is not supported: it keeps no"):
        rotary_of(build(gptj, attention="eager"))
    latent_attention = DeepseekV3Config(
        **SIZES | {"num_hidden_layers": 1},
        num_key_value_heads=4,
        intermediate_size=48,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        first_k_dense_replace=1,
    )
    with pytest.raises(ValueError, match="do not turn with their position"):
        rotary_of(build(latent_attention))
    model = FAMILIES["llama"]()
    model.model.rotary_emb.inv_freq.copy_(torch.tensor([1.0, 0.5, 0.2, 0.1]))
    keys, calls = model.model.rotary_emb.forward, []

    def stretched(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return keys(x, position_ids * 2)

    model.model.rotary_emb.forward = stretched
    with pytest.raises(ValueError, match="turn otherwise than its frequencies say"):
        rotary_of(model)
    assert calls


def test_keys_of_a_cache_are_left_alone():
    model, cache = FAMILIES["llama"](), DynamicCache()
    with torch.no_grad():
        _, trace = capture(model, tokens(), past_key_values=cache)
    before = [layer.keys.clone() for layer in cache.layers]
    unrotate_trace(trace, rotary_of(model))
    for layer, keys in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["stories260K", "babyllama_tok105"])
def test_unrotated_keys_of_pretrained_models_are_their_own(name, shared):
    model = load_model(shared / "models" / name)
    ids = torch.randint(3, 100, (2, 60), generator=torch.Generator().manual_seed(0))
    trace, expected = pre_rotation_keys(model, ids, torch.ones_like(ids))
    found = unrotate_trace(trace, rotary_of(model)).keys
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
