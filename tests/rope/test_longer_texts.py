"""Frequencies that depend on the length of the text are those of the forward that used them."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
)

from families import VOCAB_SIZE, build
from kava.models.capture import capture
from kava.models.rotary import rotary_of
from kava.rope import unrotate, unrotate_trace
from rotated_models import (
    KINDS,
    SIZES,
    llama_config,
    pre_rotation_keys,
)


def longer_texts_config(rope_type: str) -> LlamaConfig:
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0}
    if rope_type == "longrope":
        factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.5, 3.0, 4.0]}
        rope |= factors | {"original_max_position_embeddings": 16}
    return llama_config(rope_parameters=rope, max_position_embeddings=16)


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


@pytest.mark.parametrize("rope_type", ["linear", "yarn", "llama3", "dynamic", "longrope"])
@pytest.mark.parametrize("length", [9, 40])
def test_a_scaled_rotation_of_a_part_of_each_head(rope_type, length):
    rope = {
        "rope_type": rope_type,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 3.0],
    }
    options = SIZES | {"max_position_embeddings": 16, "bos_token_id": None, "eos_token_id": 0}
    model = build(GPTNeoXConfig(**options, intermediate_size=48, rope_parameters=rope))
    rotary = rotary_of(model)
    assert rotary.rotary_dim == 4
    ids = torch.randint(1, VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(0))
    trace, expected = pre_rotation_keys(model, ids, torch.ones_like(ids))
    found = unrotate_trace(trace, rotary).keys
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


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
        **SIZES | {"max_position_embeddings": 16},
        intermediate_size=48,
        num_key_value_heads=2,
        head_dim=16,
        layer_types=KINDS,
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
