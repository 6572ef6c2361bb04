from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kava.align import CKA_LAYER_MAPS, cka_layer_map, register_cka_layer_map

depths = st.integers(1, 6)
strategies = pytest.mark.parametrize("strategy", sorted(CKA_LAYER_MAPS))


def random_cka(num_student: int, num_teacher: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_student, num_teacher, generator=generator, dtype=torch.float64)


def best_path_by_trial(cka: Tensor) -> float:
    """The highest total of all monotone paths from the first to the last layer."""
    S, T = cka.shape
    if S == 1:
        return float(cka[0, -1])
    steps = range(1, T) if T >= S else (0, 1)
    return max(
        sum(float(cka[s, t]) for s, t in enumerate(path))
        for path in product(range(T), repeat=S)
        if path[0] == 0 and path[-1] == T - 1 and all(b - a in steps for a, b in pairwise(path))
    )


@settings(deadline=None, max_examples=80)
@given(num_student=depths, num_teacher=depths, seed=st.integers(0, 1000))
def test_the_monotone_path_is_the_best_of_all(
    num_student: int, num_teacher: int, seed: int
) -> None:
    cka = random_cka(num_student, num_teacher, seed)
    weights = cka_layer_map(cka, "monotone")
    assert set(weights.unique().tolist()) <= {0.0, 1.0}
    path = weights.argmax(1).tolist()
    assert path == sorted(path)
    assert path[-1] == num_teacher - 1
    if num_student > 1:
        assert path[0] == 0
    if num_teacher <= num_student:
        assert (weights.sum(0) > 0).all()
    if num_teacher == num_student:
        assert torch.equal(weights, torch.eye(num_teacher))
    total = float((cka * weights).sum())
    assert total == pytest.approx(best_path_by_trial(cka), abs=1e-6)


@settings(deadline=None, max_examples=80)
@given(num_student=depths, num_teacher=depths, seed=st.integers(0, 1000), data=st.data())
def test_top_k_is_the_average_of_the_k_largest(
    num_student: int, num_teacher: int, seed: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, num_teacher))
    cka = random_cka(num_student, num_teacher, seed)
    weights = cka_layer_map(cka, "top_k", top_k)
    for own, row in zip(cka.tolist(), weights.tolist()):
        best = sorted(range(num_teacher), key=lambda t: -own[t])[:top_k]
        total = sum(own[t] for t in best)
        expected = [own[t] / total if t in best else 0.0 for t in range(num_teacher)]
        assert row == pytest.approx(expected, abs=1e-6)


@strategies
def test_every_map_is_rows_of_weights(strategy: str) -> None:
    weights = cka_layer_map(random_cka(5, 9, 0), strategy)
    assert weights.shape == (5, 9)
    assert weights.dtype == torch.float32
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(5))


@strategies
def test_a_diagonal_is_followed(strategy: str) -> None:
    cka = 0.2 * random_cka(6, 6, 0) + 0.7 * torch.eye(6)
    assert cka_layer_map(cka, strategy, top_k=1).argmax(1).tolist() == list(range(6))


def test_layers_below_0_have_no_weight() -> None:
    cka = torch.tensor([[0.3, -0.2, -0.1]])
    assert cka_layer_map(cka, "top_k", top_k=3).tolist() == [[1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="student layer 1 has no CKA above 0"):
        cka_layer_map(torch.tensor([[0.3, 0.1], [-0.1, 0.0]]), "top_k")


def test_what_gives_no_map_is_refused() -> None:
    cka = random_cka(2, 3, 0)
    with pytest.raises(ValueError, match="'best' is unknown; choose from top_k, monotone"):
        cka_layer_map(cka, "best")
    for top_k in (0, 4):
        with pytest.raises(ValueError, match=f"top_k={top_k} must be from 1 to .* 3"):
            cka_layer_map(cka, "top_k", top_k)
    with pytest.raises(ValueError, match="finite matrix"):
        cka_layer_map(cka[0])
    with pytest.raises(ValueError, match="finite matrix"):
        cka_layer_map(cka * torch.nan)


def test_a_new_strategy_is_known_by_its_name() -> None:
    register_cka_layer_map("first")(lambda cka, top_k: torch.eye(*cka.shape)[:1].expand(2, -1))
    try:
        assert cka_layer_map(random_cka(2, 3, 0), "first").tolist() == [[1, 0, 0], [1, 0, 0]]
    finally:
        del CKA_LAYER_MAPS["first"]
