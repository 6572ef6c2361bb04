"""Schedules: the warm-up's gate and the annealing of layer weights."""

from __future__ import annotations

import pytest
import torch

from kava.losses import (
    LAYER_EMPHASES,
    TrainingProgress,
    annealed_layer_weights,
    gated_weights,
    warmup_gate,
)


@pytest.mark.parametrize("warmup", [0, 1, 2, 7])
def test_the_gate_is_shut_for_the_warm_up_and_open_after_as_many_steps_again(warmup: int) -> None:
    gates = [warmup_gate(step, warmup) for step in range(3 * warmup + 3)]
    assert gates[:warmup] == [0.0] * warmup
    assert all(gate > 0 for gate in gates[warmup:])
    assert gates == sorted(gates)
    opening = gates[warmup : 2 * warmup]
    assert opening == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert all(gate == 1 for gate in gates[2 * warmup :])


def test_a_gate_between_blends_uniform_weights_with_the_given_ones() -> None:
    weights = torch.tensor([[0.5, 1.5]])
    assert gated_weights(weights, 0.0).tolist() == [[1.0, 1.0]]
    assert gated_weights(weights, 0.5).tolist() == [[0.75, 1.25]]
    assert torch.equal(gated_weights(weights, 1.0), weights)


@pytest.mark.parametrize("num_layers", [2, 3, 12])
@pytest.mark.parametrize("step", [0, 13, 99])
def test_deep_and_shallow_mirror_each_other_with_a_mean_of_1(num_layers: int, step: int) -> None:
    progress = TrainingProgress(step, 100)
    deep, shallow = (
        annealed_layer_weights(name, num_layers, progress)
        for name in ("deep_first", "shallow_first")
    )
    assert deep is not None
    assert shallow is not None
    torch.testing.assert_close(deep, shallow.flip(0))
    assert deep.mean().item() == pytest.approx(1)
    assert (deep.diff() > 0).all()
    assert (deep > 0).all()


def test_the_ends_differ_by_the_number_of_layers_at_first_and_then_draw_level_linearly() -> None:
    spreads = []
    for step in range(0, 101, 25):
        weights = annealed_layer_weights(
            "deep_first", 4, TrainingProgress(step, 1000), num_steps=100
        )
        spreads.append(0.0 if weights is None else (weights[-1] - weights[0]).item())
    first = annealed_layer_weights("deep_first", 4, TrainingProgress(0, 1000))
    assert first is not None
    assert (first[-1] / first[0]).item() == pytest.approx(4)
    assert spreads == pytest.approx([1.2, 0.9, 0.6, 0.3, 0.0])


def test_without_steps_the_whole_run_counts_and_at_its_end_all_weigh_alike() -> None:
    half = annealed_layer_weights("deep_first", 2, TrainingProgress(500, 1000))
    assert half is not None
    torch.testing.assert_close(half, torch.tensor([5 / 6, 7 / 6]))
    assert annealed_layer_weights("deep_first", 2, TrainingProgress(1000, 1000)) is None
    assert annealed_layer_weights("none", 2, TrainingProgress(0, 1000)) is None


def test_an_unknown_emphasis_is_refused() -> None:
    with pytest.raises(
        ValueError, match=f"emphasis='middle' .* choose {', '.join(LAYER_EMPHASES)}"
    ):
        annealed_layer_weights("middle", 2, TrainingProgress())
