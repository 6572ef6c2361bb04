from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kava.align import (
    LAYER_MAPS,
    layer_map,
    load_layer_map,
    register_layer_map,
    resolve_layer_map,
    save_layer_map,
)

depths = st.integers(1, 40)
strategies = pytest.mark.parametrize("strategy", sorted(LAYER_MAPS))


@strategies
@settings(deadline=None, max_examples=60)
@given(num_teacher=depths, num_student=depths)
def test_every_map_is_a_monotone_average(strategy: str, num_teacher: int, num_student: int) -> None:
    weights = layer_map(num_teacher, num_student, strategy=strategy)
    assert weights.shape == (num_student, num_teacher)
    assert weights.dtype == torch.float32
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(num_student))
    read = [row.nonzero().flatten() for row in weights]
    for above, below in pairwise(read):
        assert above[0] <= below[0]
        assert above[-1] <= below[-1]
    mean_depth = weights.double() @ torch.arange(num_teacher, dtype=torch.float64)
    assert (mean_depth.diff() >= -1e-6).all()


@strategies
@pytest.mark.parametrize("depth", [1, 2, 7, 24])
def test_equal_depths_are_the_identity(strategy: str, depth: int) -> None:
    assert torch.equal(layer_map(depth, depth, strategy=strategy), torch.eye(depth))


@strategies
@settings(deadline=None, max_examples=60)
@given(num_teacher=st.integers(1, 40), num_student=st.integers(2, 40))
def test_first_and_last_layer_are_reached(
    strategy: str, num_teacher: int, num_student: int
) -> None:
    weights = layer_map(num_teacher, num_student, strategy=strategy)
    assert weights[0, 0] > 0
    assert weights[-1, -1] > 0
    if num_teacher <= num_student:
        assert (weights.sum(0) > 0).all()


def test_a_shallow_student_interpolates_at_the_proportional_position() -> None:
    weights = layer_map(6, 3)
    expected = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0, 1.0]])
    torch.testing.assert_close(weights, expected)
    by_depth = layer_map(24, 12).double() @ torch.arange(24, dtype=torch.float64)
    torch.testing.assert_close(
        by_depth, torch.linspace(0, 23, 12, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_uniform_averages_each_group_of_a_partition() -> None:
    weights = layer_map(7, 3, strategy="uniform")
    assert [row.nonzero().flatten().tolist() for row in weights] == [[0, 1], [2, 3], [4, 5, 6]]
    assert torch.equal(weights[2, 4:], torch.full((3,), 1 / 3))
    assert layer_map(2, 4, strategy="uniform").argmax(1).tolist() == [0, 0, 1, 1]


def test_skip_takes_one_layer_each() -> None:
    weights = layer_map(24, 12, strategy="skip")
    assert (weights.max(1).values == 1).all()
    chosen = weights.argmax(1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert layer_map(6, 3, strategy="skip").argmax(1).tolist() == [0, 3, 5]


def test_a_single_student_layer_reads_the_last_or_the_average() -> None:
    assert layer_map(5, 1).tolist() == [[0, 0, 0, 0, 1]]
    assert layer_map(5, 1, strategy="skip").tolist() == [[0, 0, 0, 0, 1]]
    torch.testing.assert_close(layer_map(5, 1, strategy="uniform"), torch.full((1, 5), 0.2))


@strategies
def test_json_round_trip_is_exact(strategy: str, tmp_path: Path) -> None:
    weights = layer_map(23, 7, strategy=strategy)
    save_layer_map(weights, tmp_path / "map.json")
    assert torch.equal(load_layer_map(tmp_path / "map.json", 23, 7), weights)
    assert torch.equal(load_layer_map(tmp_path / "map.json"), weights)
    assert [path.name for path in tmp_path.iterdir()] == ["map.json"]


def test_a_file_for_other_depths_is_refused_by_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    save_layer_map(layer_map(24, 12), path)
    with pytest.raises(ValueError, match=r"map\.json maps 24 teacher layers to 12 .* 28 and 12"):
        load_layer_map(path, 28, 12)
    with pytest.raises(ValueError, match="24 and 6"):
        resolve_layer_map(str(path), 24, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a layer map"),
        ("[1, 2]", "its format is not"),
        (
            '{"format": "kava.layer_map.v1"}',
            "lacks num_student_layers, num_teacher",
        ),
        ({"weights": [[1.0, 0.0], [1.0]]}, "not a matrix"),
        ({"weights": [["a", 0.0]]}, "not a matrix"),
        ({"weights": [[0.5, 0.4]]}, "row 0 sums to 0.9"),
        ({"weights": [[1.0]]}, "has shape"),
        ({"weights": [[float("nan"), 0.0]]}, "not finite"),
    ],
)
def test_a_damaged_file_is_named(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if isinstance(content, dict):
        head = {"format": "kava.layer_map.v1", "num_teacher_layers": 2, "num_student_layers": 1}
        content = json.dumps(head | content)
    path.write_text(str(content))
    with pytest.raises(ValueError, match=message) as caught:
        load_layer_map(path)
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_bad_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="'nearest' is unknown; choose from ratio, uniform, skip"):
        layer_map(4, 2, strategy="nearest")
    with pytest.raises(ValueError, match=r"ends in \.json"):
        resolve_layer_map("nearest", 4, 2)
    with pytest.raises(ValueError, match="num_student_layers=0"):
        layer_map(4, 0)
    with pytest.raises(ValueError, match="row 1 sums to 2"):
        resolve_layer_map(torch.ones(2, 2) * torch.tensor([[0.5], [1.0]]), 2, 2)
    with pytest.raises(ValueError, match=r"shape \[2, 3\]"):
        resolve_layer_map(torch.full((2, 3), 1 / 3), 4, 2)


def test_a_new_strategy_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYER_MAPS, "last", lambda teacher, student: torch.eye(student, teacher))
    register_layer_map("first")(lambda teacher, student: torch.eye(student, teacher))
    monkeypatch.delitem(LAYER_MAPS, "last")
    try:
        assert layer_map(3, 2, strategy="first").tolist() == [[1, 0, 0], [0, 1, 0]]
    finally:
        del LAYER_MAPS["first"]
