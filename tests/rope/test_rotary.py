"""Keys out of their rotation are the model's own pre-rotation keys, and go back again."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

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
    LlamaConfig,
    PreTrainedModel,
    SmolLM3Config,
)

from families import FAMILIES, VOCAB_SIZE, build
from kava.capture import capture
from kava.rope import (
    Rotary,
    build_scaling,
    rerotate,
    rotary_of,
    rotate,
    rotate_trace,
    unrotate,
    unrotate_trace,
)
from kava.trace import KVTrace

T = 9
ROTARY_FAMILIES = [name for name in FAMILIES if name != "gpt2"]


def tokens() -> Tensor:
    return torch.randint(1, VOCAB_SIZE, (2, T), generator=torch.Generator().manual_seed(0))


def left_padded_mask() -> Tensor:
    return torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def random_heads(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def loop_rotate(x: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """The rotation as written in the paper, one pair of dims at a time."""
    out = x.clone()
    half = rotary.rotary_dim // 2
    B, L, H, length, _ = x.shape
    for b in range(B):
        for layer in range(L):
            per_layer = rotary.inv_freq.ndim == 2
            frequencies = rotary.inv_freq[layer] if per_layer else rotary.inv_freq
            scaling = rotary.attention_scaling
            scaling = scaling[layer] if isinstance(scaling, tuple) else scaling
            for h in range(H):
                for t in range(length):
                    p = positions[b, t] if positions.ndim == 2 else positions[b, layer, h, t]
                    for i in range(half):
                        pair = (i, i + half) if rotary.layout == "half" else (2 * i, 2 * i + 1)
                        angle = float(p) * float(frequencies[i])
                        c, s = math.cos(angle) * scaling, math.sin(angle) * scaling
                        first, second = (float(x[b, layer, h, t, d]) for d in pair)
                        out[b, layer, h, t, pair[0]] = first * c - second * s
                        out[b, layer, h, t, pair[1]] = second * c + first * s
    return out


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
    x = random_heads(1, 3, 4, T, 8)
    turned = rotate(x, torch.arange(T)[None], rotary)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.allclose(turned[..., 1:, :4], x[..., 1:, :4])


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_rotation_equals_the_written_out_one(layout, by_head, per_layer):
    B, L, H, D, R = 2, 2, 2, 8, 6
    x = random_heads(B, L, H, T, D)
    generator = torch.Generator().manual_seed(2)
    positions = torch.randint(0, 50, (B, L, H, T) if by_head else (B, T), generator=generator)
    inv_freq = torch.rand(*((L, R // 2) if per_layer else (R // 2,)), generator=generator)
    rotary = Rotary(
        inv_freq=inv_freq,
        rotary_dim=R,
        attention_scaling=(1.5, 0.5) if per_layer else 1.5,
        layout=layout,
    )
    turned = rotate(x, positions, rotary)
    torch.testing.assert_close(turned, loop_rotate(x, positions, rotary), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unrotate(turned, positions, rotary), x, atol=1e-5, rtol=1e-5)


def test_queries_follow_the_positions_of_their_key_head():
    positions = torch.randint(0, 50, (2, 3, 2, T), generator=torch.Generator().manual_seed(0))
    rotary = Rotary(inv_freq=torch.tensor([1.0, 0.1]), rotary_dim=4)
    queries = random_heads(2, 3, 6, T, 4)
    expected = loop_rotate(queries, positions.repeat_interleave(3, dim=2), rotary)
    torch.testing.assert_close(rotate(queries, positions, rotary), expected, atol=1e-5, rtol=1e-5)


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


def test_gradients_pass_a_rotation():
    rotary = Rotary(inv_freq=torch.tensor([1.0, 0.1]), rotary_dim=4)
    x = random_heads(1, 1, 1, 3, 6).double().requires_grad_()
    positions = torch.tensor([[0, 2, 5]])
    for turn in (rotate, unrotate):
        assert torch.autograd.gradcheck(lambda keys, turn=turn: turn(keys, positions, rotary), x)


@pytest.mark.parametrize("rope_type", ["linear", "yarn", "llama3", "dynamic", "longrope"])
def test_scaled_rotations_are_read_with_their_attention_scaling(rope_type):
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0}
    if rope_type != "linear":
        rope["original_max_position_embeddings"] = 32
    if rope_type == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    model = build(_llama_config(rope_parameters=rope))
    rotary = rotary_of(model)
    assert (rotary.attention_scaling > 1) == (rope_type in ("yarn", "longrope"))
    assert (rotary.num_positions is None) == (rope_type not in ("dynamic", "longrope"))
    trace, expected = pre_rotation_keys(model, tokens(), left_padded_mask())
    found = unrotate_trace(trace, rotary).keys
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def longer_texts_config(rope_type: str) -> LlamaConfig:
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0}
    if rope_type == "longrope":
        factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.5, 3.0, 4.0]}
        rope |= factors | {"original_max_position_embeddings": 16}
    return _llama_config(rope_parameters=rope, max_position_embeddings=16)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
@pytest.mark.parametrize("length", [9, 16, 17, 40])
def test_unrotated_keys_of_longer_texts_are_the_models_own(rope_type, length):
    model = build(longer_texts_config(rope_type))
    rotary = rotary_of(model)
    assert rotary.num_positions == 16
    ids = torch.randint(1, VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    trace, expected = pre_rotation_keys(model, ids, mask)
    found = unrotate_trace(trace, rotary).keys
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    fixed = unrotate_trace(trace.slice(2, 5), rotary.at_length(length)).keys
    torch.testing.assert_close(fixed, expected[..., 2:5, :], atol=1e-4, rtol=1e-4)
    if length > 16:
        short = unrotate(trace.keys, trace.positions, rotary.at_length(16))
        assert not torch.allclose(short, expected, atol=1e-2)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_keys_do_not_depend_on_what_was_read_before(rope_type):
    model = build(longer_texts_config(rope_type))
    ids = torch.randint(1, VOCAB_SIZE, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, first = capture(model, ids[:, :20])
        capture(model, ids)
        _, again = capture(model, ids[:, :20])
    assert torch.equal(first.keys, again.keys)


def test_forgetting_longer_texts_restores_every_type_of_layer():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    other = {"rope_type": "default", "rope_theta": 1e3}
    config = Gemma3TextConfig(
        **_SIZES | {"max_position_embeddings": 16},
        intermediate_size=48,
        num_key_value_heads=2,
        head_dim=16,
        layer_types=_KINDS,
        rope_parameters={"full_attention": rope, "sliding_attention": other},
    )
    model = build(config)
    rotary = rotary_of(model)
    assert rotary.inv_freq.shape == (3, 8)
    ids = torch.randint(1, VOCAB_SIZE, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, first = capture(model, ids[:, :20])
        capture(model, ids)
        _, again = capture(model, ids[:, :20])
    assert torch.equal(first.keys, again.keys)
    longer = rotary.at_length(60).inv_freq
    assert torch.equal(longer[:2], rotary.inv_freq[:2])
    assert not torch.equal(longer[2], rotary.inv_freq[2])


def test_a_longer_text_without_known_frequencies_is_refused():
    rotary = Rotary(inv_freq=torch.ones(4), rotary_dim=8, num_positions=32)
    keys = random_heads(1, 1, 1, 1, 8)
    rotate(keys, torch.tensor([[31]]), rotary)
    with pytest.raises(ValueError, match="33 positions is beyond the 32"):
        rotate(keys, torch.tensor([[32]]), rotary)


@pytest.mark.parametrize("scaling", [None, "linear", "ntk", "yarn"])
def test_keys_can_be_rotated_past_the_models_longest_text(scaling):
    options = {} if scaling is None else {"factor": 4.0}
    if scaling == "yarn":
        options["original_max_position_embeddings"] = 32
    rotary = Rotary.of(rotary_dim=8, scaling=build_scaling(scaling or "default", **options))
    keys = random_heads(1, 2, 2, T, 8)
    far = torch.arange(T)[None] + 100_000
    turned = rotate(keys, far, rotary)
    assert turned.isfinite().all()
    torch.testing.assert_close(unrotate(turned, far, rotary), keys, atol=1e-5, rtol=1e-5)


def rotations() -> dict[str, Rotary]:
    return {
        "plain": Rotary.of(rotary_dim=8),
        "wide": Rotary.of(rotary_dim=8, theta=1e6),
        "partial": Rotary.of(rotary_dim=4),
        "neighbours": Rotary.of(rotary_dim=8, layout="interleaved"),
        "layered": Rotary(
            inv_freq=torch.tensor([[1.0, 0.1, 0.01, 0.001], [1.0, 0.0, 0.0, 0.0]]),
            rotary_dim=8,
            attention_scaling=(1.5, 0.5),
        ),
        "yarn": Rotary.of(
            rotary_dim=8,
            scaling=build_scaling("yarn", factor=4.0, original_max_position_embeddings=32),
        ),
        "dynamic": Rotary.of(
            rotary_dim=8,
            scaling=build_scaling("dynamic", factor=4.0, original_max_position_embeddings=16),
        ),
    }


@pytest.mark.parametrize("other", rotations())
@pytest.mark.parametrize("one", rotations())
def test_rerotating_is_unrotating_and_rotating(one, other):
    """In the teacher's rotation at its positions, then in the student's at its own."""
    teacher, student = rotations()[one], rotations()[other]
    plain = random_heads(2, 2, 4, T, 8)
    generator = torch.Generator().manual_seed(3)
    there = torch.randint(0, 50, (2, T), generator=generator)
    here = torch.randint(0, 20, (2, 2, 2, T), generator=generator)
    turned = rotate(plain, there, teacher)
    found = rerotate(turned, there, teacher, student, here)
    torch.testing.assert_close(found, rotate(plain, here, student), atol=2e-5, rtol=1e-4)
    if one == other:
        assert torch.equal(rerotate(turned, there, teacher, student), turned)


def test_models_without_a_rotation_rerotate_one_way():
    rotary, keys = Rotary.of(rotary_dim=8), random_heads(1, 2, 2, T, 8)
    here, there = torch.arange(T)[None], torch.arange(T)[None] + 7
    assert rerotate(keys, here, None, None) is keys
    assert torch.equal(rerotate(keys, here, None, rotary, there), rotate(keys, there, rotary))
    assert torch.equal(rerotate(keys, here, rotary, None, there), unrotate(keys, here, rotary))


def _llama_config(**options: object) -> LlamaConfig:
    return LlamaConfig(**_SIZES | {"intermediate_size": 48, "num_key_value_heads": 2} | options)


_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
_KINDS = ["sliding_attention", "sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("config_class", "options", "layout", "still"),
    [
        (CohereConfig, {}, "interleaved", []),
        (GlmConfig, {"head_dim": 8}, "interleaved", []),
        (Gemma3TextConfig, {"head_dim": 16, "layer_types": _KINDS}, "half", []),
        (SmolLM3Config, {"no_rope_layers": [1, 0, 1]}, "half", [1]),
    ],
)
def test_other_layouts_and_layers_of_their_own_are_read_off_the_model(
    config_class, options, layout, still
):
    model = build(config_class(**_SIZES, intermediate_size=48, num_key_value_heads=2, **options))
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
        **_SIZES | {"num_hidden_layers": 1},
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


@pytest.mark.parametrize(
    ("keys", "positions", "rotary", "message"),
    [
        ((2, 3, 2, 5, 8), (2, 4), {}, r"positions must be \[2, 5\] or \[2, 3, 2, 5\]"),
        ((2, 3, 2, 5, 8), (2, 3, 4, 5), {}, "positions must be"),
        ((2, 3, 2, 5, 2), (2, 5), {}, "turns 4 dims, the heads have 2"),
        ((2, 3, 2, 5, 8), (2, 5), {"inv_freq": torch.ones(2, 2)}, "describes 2 layers, the keys"),
    ],
)
def test_parts_that_do_not_fit_are_refused(keys, positions, rotary, message):
    described = Rotary(**{"inv_freq": torch.ones(2), "rotary_dim": 4} | rotary)
    with pytest.raises(ValueError, match=message):
        rotate(torch.zeros(keys), torch.zeros(positions), described)
    with pytest.raises(ValueError, match="inv_freq must be"):
        Rotary(inv_freq=torch.ones(3), rotary_dim=4)


def test_a_trace_is_not_turned_twice():
    rotary = Rotary(inv_freq=torch.ones(2), rotary_dim=4)
    trace = KVTrace(torch.ones(1, 1, 1, 2, 4), torch.ones(1, 1, 1, 2, 4))
    with pytest.raises(ValueError, match="rotated already"):
        rotate_trace(trace, rotary)
    with pytest.raises(ValueError, match="un-rotated already"):
        unrotate_trace(replace(trace, rotated=False), rotary)
    with pytest.raises(ValueError, match="has no positions"):
        unrotate_trace(trace, rotary)


def test_keys_of_a_cache_are_left_alone():
    model, cache = FAMILIES["llama"](), DynamicCache()
    with torch.no_grad():
        _, trace = capture(model, tokens(), past_key_values=cache)
    before = [layer.keys.clone() for layer in cache.layers]
    unrotate_trace(trace, rotary_of(model))
    for layer, keys in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)


def test_the_tensor_functions_do_not_bring_in_transformers():
    code = "import sys, kava.rope; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
