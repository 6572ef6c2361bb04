"""Runs that start from an earlier run's student, and what an evaluation looks at beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, run, small, weights
from safetensors.torch import load_file

from kava.jobs.fingerprint import fingerprint_of
from kava.student.checkpoint import find_student
from kava.student.whole import WEIGHTS_FILE
from kava.train.build import build_run
from kava.train.models import build_student


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier") / "run"
    run(small(folder, max_steps=2, save_steps=1))
    return folder


def test_the_student_is_the_earlier_runs_with_its_thought_vectors(earlier: Path) -> None:
    fresh, again = (build_student(small(start_from=start)) for start in (None, str(earlier)))
    assert find_student(earlier) == earlier / "checkpoint-2"
    stored = load_file(earlier / "checkpoint-2" / WEIGHTS_FILE)
    assert "thought_embeddings" in stored
    for name, part in stored.items():
        assert torch.equal(again.state_dict()[name], part)
    assert not torch.equal(fresh.thought_embeddings, again.thought_embeddings)


def test_a_run_goes_on_whatever_became_of_its_start(earlier: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 3, "save_steps": 1}
    whole = run(small(tmp_path / "whole", start_from=str(earlier), **options))
    run(small(tmp_path / "part", start_from=str(earlier), **options))
    for file in (tmp_path / "part" / "checkpoint-3").iterdir():
        file.unlink()
    (tmp_path / "part" / "checkpoint-3").rmdir()
    part = run(small(tmp_path / "part", start_from="moved away", resume=True, **options))
    ours, theirs = weights(part.trainer.model), weights(whole.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start_from": "no/such"}, "--start_from no/such: the folder 'no/such' does not exist"),
        ({"start_from": "."}, "holds no complete checkpoint"),
        (
            {"student": "explicit", "teacher_name": "kava/shell-teacher"},
            "it holds a student that is latent; pass --student latent",
        ),
        ({"model_name": "kava/tiny-gpt2", "max_length": 256}, "is a checkpoint of another model"),
        ({"decoding": "jacobi"}, "is a checkpoint of another model: 'placeholders'"),
    ],
)
def test_another_student_is_refused(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path / "run", **{"start_from": str(earlier), "overflow": "skip", **changes})
    with pytest.raises((OSError, ValueError), match=re.escape(said)) as error:
        build_run(config)
    assert "\n" not in str(error.value)


def test_the_weights_that_it_starts_from_decide_a_study(earlier: Path) -> None:
    plain = fingerprint_of("kava/shell-llama")
    started = fingerprint_of("kava/shell-llama", start_from=str(earlier))
    other = fingerprint_of("kava/shell-llama", start_from=str(earlier / "checkpoint-1"))
    assert started.keys() - plain.keys() == {"start_weights"}
    assert started["start_weights"] != other["start_weights"]
    assert (earlier / "checkpoint-2" / WEIGHTS_FILE).is_file()


def test_an_evaluation_before_the_first_step_and_the_gap(tmp_path: Path) -> None:
    options = {"eval_size": 8, "eval_steps": 2, "max_new_tokens": 2}
    looked = run(small(tmp_path / "looked", eval_first=True, eval_train_size=8, **options))
    plain = run(small(tmp_path / "plain", **options))
    ours, theirs = weights(looked.trainer.model), weights(plain.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = [row for row in all_rows(tmp_path / "looked") if "eval_ce" in row]
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row in rows:
        assert {"eval_accuracy", "eval_kv", "eval_train_kv", "eval_train_ce"} <= set(row)
    assert [row["step"] for row in all_rows(tmp_path / "plain") if "eval_ce" in row] == [2, 4]


def test_the_losses_on_training_samples_are_those_of_an_evaluation_on_them(tmp_path: Path) -> None:
    """Oracle: the same samples, held out."""
    built = build_run(small(tmp_path, eval_size=8, eval_train_size=56, eval_batch_size=16))
    trainer = built.trainer
    found = trainer.held_out_losses()
    again = trainer.held_out_losses(trainer.train_dataset)
    for name in ("loss", "ce", "kv", "teacher_ce"):
        assert found[f"eval_train_{name}"] == pytest.approx(again[f"eval_{name}"], rel=1e-5)


@pytest.mark.parametrize("name", ["eval_first", "eval_train_size"])
def test_without_evaluations_they_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} is about evaluations"):
        small(**{name: 1 if name == "eval_train_size" else True})


def test_chains_of_one_question_stay_together_and_apart(tmp_path: Path) -> None:
    rows = [
        {"id": f"{q}-{n}", "question": f"{q} and {q}?", "reasoning": f"way {n}\nso {2 * q}",
         "answer": str(2 * q)}
        for q in range(12) for n in range(3)
    ]  # fmt: skip
    data = tmp_path / "chains.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model_name": "kava/tiny-gpt2", "dataset_name": str(data), "max_length": 96}
    options |= {"eval_size": 9, "max_steps": 1, "target_len": 2, "max_new_tokens": 2}
    built = build_run(small(tmp_path / "run", **options))
    sides = [
        {sample.id.split("-")[0] for sample in part} for part in (built.data.train, built.data.eval)
    ]
    assert sides[0].isdisjoint(sides[1])
    assert (len(built.data.train), len(built.data.eval)) == (27, 9)
    ids = [sample.id.split("-") for sample in built.data.eval]
    assert [n for _, n in ids] == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert all(one[0] != other[0] for one, other in zip(ids, ids[1:] + ids[:1]))
    assert len(built.trainer.questions) == 3
    with pytest.raises(ValueError, match="repeated questions stay together; choose another size"):
        build_run(small(tmp_path / "other", **{**options, "eval_size": 8}))
