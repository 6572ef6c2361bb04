"""Scores of data sets: the file, what it is found by, and what is computed again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from kava.data.encode import encode_records
from kava.data.encoded import Encoded
from kava.data.records import Record
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game, shell_game_tokenizer
from kava.importance import SCORERS, ScoreStore, score_samples, weights_fingerprint
from kava.importance.knockout import knockout
from kava.models.load import load_model


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return load_model("kava/shell-llama")


@pytest.fixture(scope="module")
def data() -> tuple[list[Encoded], list[Record]]:
    """Samples of two lengths, mixed."""
    records = shell_game(6, form="verbose") + shell_game(5, seed=1, num_moves=3, form="verbose")
    records = [replace(record, id=f"r{i}") for i, record in enumerate(records[::2] + records[1::2])]
    encoded, _ = encode_records(records, shell_game_tokenizer(), SHELL_GAME_TEMPLATE, 64)
    return encoded, records


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the samples that the model is asked for."""
    ids: list[str] = []

    def counting(model: PreTrainedModel, batch, stages):
        ids.extend(batch["ids"])
        return knockout(model, batch, stages)

    monkeypatch.setitem(SCORERS, "knockout", counting)
    return ids


def equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def test_every_sample_gets_a_score_per_reasoning_token(teacher, data, monkeypatch) -> None:
    encoded, records = data
    rows = score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE)
    assert [len(row) for row in rows] == [s.answer_start - s.prompt_length for s in encoded]
    assert all(row.dtype == np.float32 for row in rows)
    monkeypatch.setattr("kava.importance.batches.CPU_TOKENS", 60)  # two samples at a time
    small = score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE)
    for row, other in zip(rows, small):
        np.testing.assert_allclose(row, other, atol=2e-5)


def test_a_sample_is_asked_for_once(teacher, data, asked, tmp_path: Path) -> None:
    encoded, records = data
    path = tmp_path / "deep" / "scores.safetensors"
    options = {"records": records, "template": SHELL_GAME_TEMPLATE, "path": path}
    first = score_samples(teacher, encoded[:4], **options)
    assert sorted(asked) == sorted(s.id for s in encoded[:4])
    asked.clear()
    # more samples, in another order, one of them under another name
    renamed = replace(encoded[0], id="other")
    records_ = [*records, replace(records[0], id="other")]
    rows = score_samples(teacher, [*encoded[::-1], renamed], **{**options, "records": records_})
    assert sorted(asked) == sorted(s.id for s in encoded[4:])
    assert equal(rows[:-1][::-1][:4], first)
    assert np.array_equal(rows[-1], first[0])
    asked.clear()
    assert equal(score_samples(teacher, encoded, **options), rows[:-1][::-1])
    assert asked == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_manifest_says_what_the_scores_are_of(teacher, data, tmp_path: Path) -> None:
    encoded, records = data
    path = tmp_path / "scores.safetensors"
    score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE, path=path)
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["kava"]
    assert json.loads(text) == {
        "format": 1,
        "method": "knockout",
        "reach": "later_steps",
        "teacher": weights_fingerprint(teacher),
        "num_samples": len(encoded),
    }


def test_scores_of_another_teacher_or_reach_are_refused(teacher, data, tmp_path: Path) -> None:
    encoded, records = data
    path = tmp_path / "scores.safetensors"
    score_samples(teacher, encoded[:2], records, SHELL_GAME_TEMPLATE, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds scores of reach 'later_steps', .* needs 'all'"):
        score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE, path=path, reach="all")
    other = load_model("kava/shell-llama")
    with torch.no_grad():
        other.lm_head.weight[3, 5] += 1e-3
    with pytest.raises(ValueError, match=r"holds scores of teacher .*remove it, or give another"):
        score_samples(other, encoded, records, SHELL_GAME_TEMPLATE, path=path)
    assert path.read_bytes() == before


def test_the_fingerprint_follows_weights_and_geometry_alone(teacher) -> None:
    other = load_model("kava/shell-llama")
    other.config._name_or_path = "elsewhere"
    assert weights_fingerprint(other) == weights_fingerprint(teacher)
    other.config.rope_parameters["rope_theta"] = 500.0
    assert weights_fingerprint(other) != weights_fingerprint(teacher)


def test_a_damaged_file_is_named(teacher, data, tmp_path: Path) -> None:
    encoded, records = data
    path = tmp_path / "scores.safetensors"
    score_samples(teacher, encoded[:2], records, SHELL_GAME_TEMPLATE, path=path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"scores.safetensors is damaged"):
        score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE, path=path)
    with pytest.raises(OSError, match="no scores are stored there"):
        ScoreStore.load(tmp_path / "none", {})


def test_a_write_that_fails_leaves_the_old_file(data, teacher, tmp_path, monkeypatch) -> None:
    encoded, records = data
    path = tmp_path / "scores.safetensors"
    score_samples(teacher, encoded[:2], records, SHELL_GAME_TEMPLATE, path=path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"could not be written to .*no space left"):
        score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE, path=path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bad_input_is_named(teacher, data) -> None:
    encoded, records = data
    with pytest.raises(ValueError, match="method='rkv' has no scores; choose from knockout"):
        score_samples(teacher, encoded, records, SHELL_GAME_TEMPLATE, method="rkv")
    with pytest.raises(ValueError, match="sample 'r0' has no record among the 3 given"):
        score_samples(teacher, encoded, records[2:5], SHELL_GAME_TEMPLATE)
