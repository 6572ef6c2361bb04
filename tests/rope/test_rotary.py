"""The rotation as a function of tensors: written out, undone, and exchanged for another."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kava.rope import (
    Rotary,
    build_scaling,
    rerotate,
    rotate,
    rotate_trace,
    unrotate,
    unrotate_trace,
)
from kava.trace import KVTrace

T = 9


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


def test_gradients_pass_a_rotation():
    rotary = Rotary(inv_freq=torch.tensor([1.0, 0.1]), rotary_dim=4)
    x = random_heads(1, 1, 1, 3, 6).double().requires_grad_()
    positions = torch.tensor([[0, 2, 5]])
    for turn in (rotate, unrotate):
        assert torch.autograd.gradcheck(lambda keys, turn=turn: turn(keys, positions, rotary), x)


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


def test_the_tensor_functions_do_not_bring_in_transformers():
    code = "import sys, kava.rope; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
