"""The collapse guard of a run: what it says of runs that collapse, and of those that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import SMALL, run, small

from kava.commands.train import train
from kava.train.config import TrainConfig

JOINT: dict[str, Any] = {
    "teacher_name": "kava/shell-teacher",
    "alignment_mode": "flat",
    "flat_variant": "linear",
    "aligner_fit": "joint",
    "dataset_name": "kava/shell-game?num_train=500",
    "kv_layer_std": False,
    "kv_weight": 5.0,
    "ce_weight": 0.0,
    "lr": 1e-2,
    "batch_size": 32,
    "max_steps": 8,
    "eval_size": 64,
    "max_new_tokens": 1,
}


def evaluations(output_dir: Path) -> list[dict[str, float]]:
    text = (output_dir / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "eval_ce" in line]


def test_a_joint_run_that_collapses_is_said_to_and_a_resumed_one_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss falls to a third and less, and the wrong sample's with it."""
    config = small(tmp_path, eval_steps=4, save_steps=4, **JOINT)
    train(config)
    printed = capsys.readouterr().out
    said = "collapsed: every latent matches another sample's cache as well as its own"
    # at the first evaluation, since it is news, and at the end; not at every evaluation between
    assert printed.count(said) == printed.count(f"guard: {said}") == 2
    assert printed.count(", guard=collapsed") == 2
    before, *_, last = evaluations(tmp_path)
    assert before["step"] == 0
    assert "eval_accuracy" not in before
    assert last["eval_kv"] < 0.3 * before["eval_kv"]
    assert last["eval_kv_between"] < 0.8 * before["eval_kv_between"]
    assert last["eval_slots_taught"] == 0
    # as if killed after step 4: what the target had at first is read back from the log
    for name in ("model.safetensors", "kava.json"):
        (tmp_path / "checkpoint-8" / name).unlink()
    again = run(TrainConfig(**{**config.__dict__, "resume": True}))
    assert again.checkpoint == tmp_path / "checkpoint-4"
    assert said in capsys.readouterr().out
    assert [row["step"] for row in evaluations(tmp_path)] == [0, 4, 8]
    assert evaluations(tmp_path)[-1]["eval_kv"] == last["eval_kv"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"align_direction": "student_to_teacher"}, id="student mapped"),
        pytest.param({"aligner_fit": "frozen"}, id="frozen"),
    ],
)
def test_a_target_that_never_moves_is_never_said_to_collapse(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    built = run(small(tmp_path, **{**JOINT, **changes}))
    (row,) = evaluations(tmp_path)  # and none before the first step
    verdict = built.trainer.guard.verdict
    assert verdict is not None
    assert verdict.state in ("nothing", "partly")
    assert not any("at the start " in line for line in verdict.details[-1:])
    assert row["eval_slots_taught"] < 1


def test_a_student_that_is_taught_is_said_to_be(tmp_path: Path) -> None:
    """A copy of its teacher that reads the same text has the right cache from the start."""
    config = small(
        tmp_path,
        model_name="kava/shell-teacher",
        teacher_name="kava/shell-teacher",
        student="explicit",
        eval_size=32,
        max_new_tokens=1,
        max_steps=1,
        lr=1e-6,
    )
    verdict = run(config).trainer.guard.verdict
    assert verdict is not None
    assert verdict.state == "transfers"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "no verdict: nothing was held out to compare with the wrong sample; pass --eval_size"),
        (
            {"eval_size": 1, "max_new_tokens": 1},
            "no verdict: one sample was held out, which has no other; pass --eval_size 2",
        ),
        ({"kv_weight": 0.0}, None),
    ],
)
def test_without_evidence_there_is_no_verdict(
    changes: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    built = run(small(tmp_path, max_steps=1, **changes))
    assert built.trainer.guard.last_word() == expected


def test_cka_alone_is_judged_by_cka(tmp_path: Path) -> None:
    assert SMALL["kv_layer_std"]
    options = {"teacher_name": "kava/shell-teacher", "kv_weight": 0.0, "cka_weight": 1.0}
    built = run(small(tmp_path, max_steps=1, eval_size=32, max_new_tokens=1, **options))
    (row,) = evaluations(tmp_path)
    assert built.trainer.guard.verdict is not None
    assert row["eval_cka"] > 0
    assert row["eval_kv_wrong_sample"] == pytest.approx(1, abs=0.3)
