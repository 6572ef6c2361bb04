"""Scaled frequencies are transformers' own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

from kava.rope import ROPE_SCALINGS, Rotary, build_scaling, scaling_of
from kava.rope.scaling import NTKScaling

ORIGINAL = 64
FACTORS = [1.0 + 0.25 * pair for pair in range(32)]


def config_of(
    rope: dict[str, object], partial: float = 1.0, theta: float = 10_000.0
) -> LlamaConfig:
    rotary_dim = int(64 * partial)
    if rope["rope_type"] == "longrope":
        rope = {
            "short_factor": FACTORS[: rotary_dim // 2],
            "long_factor": [2 * factor for factor in FACTORS[: rotary_dim // 2]],
            **rope,
        }
    if rope["rope_type"] not in ("default", "linear"):
        rope = {"original_max_position_embeddings": ORIGINAL, **rope}
    return LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        max_position_embeddings=4 * ORIGINAL,
        rope_parameters={"rope_theta": theta, "partial_rotary_factor": partial, **rope},
    )


ROPES = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "factor": 1.0},
    {"rope_type": "yarn", "factor": 8.0, "attention_factor": 0.7},
    {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.3},
    {"rope_type": "yarn", "factor": 8.0, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    {"rope_type": "yarn", "factor": 8.0, "beta_fast": 1.0, "beta_slow": 1.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "longrope", "factor": 4.0},
    {"rope_type": "longrope", "factor": 1.0},
    {"rope_type": "longrope", "attention_factor": 1.5},
]


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
@pytest.mark.parametrize("length", [None, 10, ORIGINAL, ORIGINAL + 1, 4 * ORIGINAL, 1000])
@pytest.mark.parametrize(("partial", "theta"), [(1.0, 10_000.0), (0.5, 1e6)])
def test_frequencies_are_those_of_transformers(
    rope: dict[str, object], length: int | None, partial: float, theta: float
) -> None:
    config = config_of(rope, partial, theta)
    expected, attention = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](
        config, seq_len=length
    )
    scaling = scaling_of(config.rope_parameters, config.max_position_embeddings)
    found = scaling.inv_freq(int(64 * partial), theta, length)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
    assert scaling.attention_scaling == pytest.approx(attention, rel=1e-6)


def test_no_scaling_is_the_default_of_transformers() -> None:
    config = config_of({"rope_type": "default"}, partial=0.5)
    expected, _ = GPTNeoXRotaryEmbedding.compute_default_rope_parameters(config)
    found = scaling_of(config.rope_parameters, 64).inv_freq(32, 10_000.0)
    assert torch.equal(found, expected)


def test_ntk_is_dynamic_scaling_at_a_fixed_length() -> None:
    """With a factor of 1, the dynamic stretch of an n times longer text is n."""
    config = config_of({"rope_type": "dynamic", "factor": 1.0})
    longer = 8 * config.max_position_embeddings
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=longer)
    found = NTKScaling(factor=8.0).inv_freq(64, 10_000.0)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
    plain = build_scaling().inv_freq(64, 10_000.0)
    assert found[0] == plain[0]
    assert found[-1] == pytest.approx(float(plain[-1]) / 8, rel=1e-5)


@pytest.mark.parametrize("name", ROPE_SCALINGS)
def test_a_factor_of_one_changes_nothing(name: str) -> None:
    """The same base and length: every scaling is the identity."""
    options: dict[str, dict[str, object]] = {
        "default": {},
        "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "longrope": {"short_factor": (1.0,) * 8, "long_factor": (1.0,) * 8},
    }
    given = options.get(name, {})
    if name != "default":
        given |= {"factor": 1.0}
    if name not in ("default", "linear", "ntk"):
        given |= {"original_max_position_embeddings": 32}
    scaling = build_scaling(name, **given)
    found = scaling.inv_freq(16, 10_000.0, 20)
    torch.testing.assert_close(found, build_scaling().inv_freq(16, 10_000.0), rtol=1e-6, atol=0)
    assert scaling.attention_scaling == 1.0


def test_a_rotation_of_numbers_knows_its_longer_texts() -> None:
    scaling = build_scaling("dynamic", factor=2.0, original_max_position_embeddings=32)
    rotary = Rotary.of(rotary_dim=8, theta=1e4, scaling=scaling)
    assert rotary.num_positions == 32
    assert torch.equal(rotary.at_length(32).inv_freq, rotary.inv_freq)
    assert torch.equal(rotary.at_length(64).inv_freq, scaling.inv_freq(8, 1e4, 64))
    assert not torch.equal(rotary.at_length(64).inv_freq, rotary.inv_freq)
    always = Rotary.of(rotary_dim=8, scaling=build_scaling("linear", factor=2.0))
    assert always.num_positions is None
    assert always.at_length(10_000) is always


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yarm", {}, "rope scaling 'yarm' is unknown; choose default, linear, ntk"),
        ("linear", {"faktor": 2.0}, "'linear' has no option 'faktor'; it has factor"),
        ("default", {"factor": 2.0}, "'default' has no option 'factor'; it has none"),
        ("llama3", {"factor": 2.0}, "'llama3' needs factor, low_freq_factor"),
    ],
)
def test_scalings_that_make_no_sense_are_refused(
    name: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_scaling(name, **options)


def test_a_config_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="rope_type 'axial' is unknown"):
        scaling_of({"rope_type": "axial"}, 32)
    scaling = build_scaling(
        "longrope",
        factor=1.0,
        short_factor=(1.0,),
        long_factor=(1.0,),
        original_max_position_embeddings=8,
    )
    with pytest.raises(ValueError, match="has 1 factors, but 8 rotary dims are 4 pairs"):
        scaling.inv_freq(8, 1e4)


def wavelengths(inv_freq: Tensor) -> Tensor:
    return 2 * math.pi / inv_freq


def test_llama3_divides_long_waves_and_leaves_short_ones() -> None:
    scaling = build_scaling(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=ORIGINAL,
    )
    plain, scaled = build_scaling().inv_freq(64, 1e4), scaling.inv_freq(64, 1e4)
    short = wavelengths(plain) < ORIGINAL / 4
    long = wavelengths(plain) > ORIGINAL
    assert torch.equal(scaled[short], plain[short])
    torch.testing.assert_close(scaled[long], plain[long] / 8)
    between = ~short & ~long
    assert between.any()
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / 8).all()
