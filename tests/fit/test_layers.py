"""Layers of two models, measured on text, and the map that is kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kava.align import linear_cka, load_layer_map, resolve_layer_map, save_layer_map
from kava.fit import LayerMapping, LayerSimilarity, map_layers, measure_layers
from kava.models.capture import capture
from kava.models.rotary import rotary_of
from kava.pictures.layers import similarity_picture
from kava.pictures.theme import drawing, to_png
from kava.rope import unrotate_trace

Llama = Callable[..., PreTrainedModel]


def test_identical_models_give_a_diagonal(llama: Llama, batches: Any) -> None:
    similarity = measure_layers(llama(4), llama(4), batches(4))
    for cka in (similarity.keys, similarity.values):
        torch.testing.assert_close(cka.diagonal(), torch.ones(4).double(), atol=1e-5, rtol=0)
        off = cka[~torch.eye(4, dtype=torch.bool)]
        assert off.max() < 0.99
    assert torch.equal(map_layers(similarity, top_k=1).weights, torch.eye(4))
    assert torch.equal(map_layers(similarity, "monotone").weights, torch.eye(4))


def test_it_is_the_cka_of_the_reasoning_tokens(llama: Llama, batches: Any) -> None:
    teacher, student = llama(3, seed=1, hidden_size=64), llama(2)
    (batch,) = batches(16)
    similarity = measure_layers(teacher, student, [batch])
    reasoning = batch["segment_ids"] == 1
    assert similarity.num_positions == int(reasoning.sum())
    rows = []
    for model in (student, teacher):
        with torch.no_grad():
            _, trace = capture(model, batch["input_ids"], batch["attention_mask"])
        trace = unrotate_trace(trace, rotary_of(model))
        rows.append(
            [
                part.permute(1, 0, 3, 2, 4).flatten(3)[:, reasoning].double()
                for part in (trace.keys, trace.values)
            ]
        )
    for part, found in enumerate((similarity.keys, similarity.values)):
        for s in range(2):
            for t in range(3):
                expected = linear_cka(rows[0][part][s], rows[1][part][t], debiased=True)
                assert found[s, t].item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(similarity.mean, (similarity.keys + similarity.values) / 2)


def test_batch_size_and_padding_change_nothing(llama: Llama, batches: Any) -> None:
    teacher, student = llama(3, seed=1), llama(2)
    alone = measure_layers(teacher, student, batches(1))
    for size in (3, 16):
        together = measure_layers(teacher, student, batches(size))
        assert together.num_positions == alone.num_positions
        torch.testing.assert_close(together.mean, alone.mean, atol=1e-5, rtol=0)


def test_no_samples_are_refused(llama: Llama) -> None:
    with pytest.raises(ValueError, match="no samples to compare layers on"):
        measure_layers(llama(2), llama(2), [])


def similarity(num_student: int = 2, num_teacher: int = 3, seed: int = 0) -> LayerSimilarity:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (
        torch.rand(num_student, num_teacher, generator=generator, dtype=torch.float64) / 2
        for _ in range(2)
    )
    return LayerSimilarity(keys, values, 1234)


@pytest.mark.parametrize(("strategy", "top_k"), [("top_k", 3), ("monotone", None)])
def test_a_file_gives_back_the_map_and_the_measurement(
    strategy: str, top_k: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    facts = {"dataset_name": "a  [1,\t2]", "versions": {"a": 1}}
    mapping = map_layers(similarity(), strategy, top_k, **facts)
    mapping.save(path)
    loaded = LayerMapping.load(path)
    assert torch.equal(loaded.weights, mapping.weights)
    assert torch.equal(loaded.similarity.keys, mapping.similarity.keys)
    assert torch.equal(loaded.similarity.values, mapping.similarity.values)
    assert loaded.similarity.num_positions == 1234
    assert (loaded.strategy, loaded.top_k) == (strategy, top_k)
    assert loaded.facts == facts
    assert str(loaded) == str(mapping)
    assert [file.name for file in tmp_path.iterdir()] == ["map.json"]
    # what training reads
    assert torch.equal(resolve_layer_map(path, 3, 2), mapping.weights)
    record = json.loads(path.read_text())
    assert record["cka"]["mean"] == mapping.similarity.mean.tolist()


def test_a_file_for_other_depths_is_one_clear_line(tmp_path: Path) -> None:
    map_layers(similarity()).save(tmp_path / "map.json")
    with pytest.raises(ValueError, match=r"map\.json maps 3 teacher .* to 2 student .* 4 and 2"):
        load_layer_map(tmp_path / "map.json", 4, 2)


def test_a_map_that_was_not_measured_is_no_mapping(tmp_path: Path) -> None:
    save_layer_map(torch.eye(2), tmp_path / "map.json")
    with pytest.raises(ValueError, match="a layer map without a measurement"):
        LayerMapping.load(tmp_path / "map.json")


def test_the_table_says_what_each_layer_reads() -> None:
    cka = torch.tensor([[0.75, 0.25, 0.1], [-0.01, 0.2, 0.6]], dtype=torch.float64)
    mapping = map_layers(LayerSimilarity(cka, cka, 10))
    assert str(mapping).splitlines() == [
        "student      0      1      2   reads",
        "      0  0.750  0.250  0.100   0.75·0 + 0.25·1",
        "      1 -0.010  0.200  0.600   0.25·1 + 0.75·2",
    ]
    assert map_layers(LayerSimilarity(cka, cka, 10), "monotone").row(1) == "2"


def test_a_teacher_of_one_layer_is_read_by_all() -> None:
    assert map_layers(similarity(3, 1)).weights.tolist() == [[1.0]] * 3


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (24, 48)])
def test_the_picture_shows_both_parts_their_mean_and_the_map(size: tuple[int, int]) -> None:
    mapping = map_layers(similarity(*size))
    with drawing():
        figure = similarity_picture(mapping)
        assert to_png(figure).startswith(b"\x89PNG")
    keys, values, mean, bar = figure.axes
    top = bar.get_ylim()[1]
    for axes, part in zip((keys, values, mean), ("keys", "values", "mean")):
        assert axes.get_title(loc="left").lower().startswith(part)
        expected = getattr(mapping.similarity, part).flatten().tolist()
        assert axes.collections[1].get_facecolors()[:, 3].tolist() == pytest.approx(
            [value / top for value in expected]
        )
    dots = {(round(y), round(x)) for x, y in mean.collections[2].get_offsets().tolist()}
    assert dots == {tuple(place) for place in mapping.weights.nonzero().tolist()}
    numbered = [float(text.get_text().replace(".", "0.", 1)) for text in keys.texts]
    expected = mapping.similarity.keys.flatten().tolist() if size[1] <= 8 else []
    assert numbered == pytest.approx(expected, abs=0.005)
