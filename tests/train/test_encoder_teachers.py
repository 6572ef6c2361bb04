"""Encoders of the BERT and T5 families as teachers: calibration, training, a shared space."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, run, small

from kava.cli import run as cli
from kava.commands.calibrate import main as calibrate
from kava.models.load import load_model
from kava.train.build import Run, build_run
from kava.train.models import build_student

GPT2, LLAMA = "kava/shell-gpt2-teacher", "kava/shell-teacher"
ENCODERS = ("kava/shell-bert", "kava/shell-t5")
TAUGHT: dict[str, Any] = {
    "model_name": LLAMA,
    "teacher_name": "kava/shell-bert",
    "kv_method": "positions",
    "alignment_mode": "structured",
    "calibration_samples": 128,
    "dataset_name": "kava/shell-game?num_train=200",
    "text_ce_weight": 0.0,
    "max_steps": 2,
}
FAMILIES = {
    "teacher_name": None,
    "teachers": [f"gpt2={GPT2}", "bert=kava/shell-bert", "t5=kava/shell-t5"],
    "shared_space_weight": 5.0,
    "shared_space_dim": 8,
    "token_alignment": "soft",
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fit of a shared space."""
    monkeypatch.setattr("kava.shared.fit.NUM_STEPS", 100)


def built(folder: Path, **changes: Any) -> Run:
    return build_run(small(folder, **{**TAUGHT, **changes}))


@pytest.mark.parametrize("teacher", ENCODERS)
def test_an_encoders_cache_maps_onto_a_llama(teacher: str, tmp_path: Path) -> None:
    """Held-out R², against the wrong sample's and a random map's."""
    argv = ["--model_name", LLAMA, "--teacher_name", teacher, "--output_dir", str(tmp_path / "out")]
    argv += ["--dataset_name", "kava/shell-game?num_train=400", "--calibration_samples", "400"]
    assert cli(calibrate, [*argv, "--alignment_mode", "flat", "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "out" / "calibration.json").read_text())["report"]
    explained = {
        (layer["part"], layer["layer"]): [
            layer[name]["r_squared"] for name in ("calibrated", "wrong_sample", "random")
        ]
        for layer in report["layers"]
    }
    # the first layer's are those of the token itself, which both embed
    assert explained["keys", 0][0] > 0.99
    for fitted, *controls in explained.values():
        assert fitted > max(*controls, 0) + 0.04


@pytest.mark.parametrize("teacher", ENCODERS)
def test_an_encoder_teaches_in_two_steps(teacher: str, tmp_path: Path) -> None:
    config = small(tmp_path, **TAUGHT | {"teacher_name": teacher, "eval_size": 8})
    before = build_student(config).state_dict()
    done = run(config)
    assert done.calibration is not None
    rows = all_rows(tmp_path)
    assert any(row.get("eval_kv", 0) > 0 for row in rows)
    after = done.trainer.model.student.state_dict()
    assert any(not torch.equal(after[name], part) for name, part in before.items())
    its = load_model(teacher, encoders=True).state_dict()
    theirs = done.trainer.model.teacher.state_dict()
    assert all(torch.equal(theirs[name], part) for name, part in its.items())


def test_the_kv_loss_alone_moves_the_student(tmp_path: Path) -> None:
    one = built(tmp_path, teacher_name="kava/shell-t5")
    model, batch = one.trainer.model.eval(), one.trainer.data_collator(one.data.train[:8])
    model(batch).weighted["kv"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.student.parameters())


@pytest.mark.parametrize("changes", [{}, {"kv_weight": 0.0, "kv_layer_std": False}], ids=str)
def test_gpt_bert_and_t5_share_a_space(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Phase 5 across families, in two steps."""
    options = {**TAUGHT, **FAMILIES, "eval_size": 16, "max_new_tokens": 2, **changes}
    done = run(small(tmp_path, **options))
    assert done.space is not None
    for said in done.space.verdicts():
        assert said.startswith("the shared space tells samples apart")
    (row,) = [row for row in all_rows(tmp_path) if "eval_ce" in row]
    assert row["eval_shared_space"] > 0
    assert row["eval_kv"] > 0  # watched where it is not trained
    assert ("eval_gradient_kv" in row) == (not changes)
    assert sum(row[f"eval_route_{one}"] for one in ("gpt2", "bert", "t5")) == pytest.approx(1)


def test_the_teachers_text_hides_the_answer(tmp_path: Path) -> None:
    """Another answer behind the same reasoning makes the same target."""
    one = built(tmp_path)
    batch = one.trainer.data_collator(one.data.train[:4])
    model = one.trainer.model.eval()
    own = model(batch).target.trace
    answers = batch["segment_ids"] == 2
    assert answers.any()
    batch["input_ids"] = torch.where(answers, batch["input_ids"].roll(1, 0), batch["input_ids"])
    other = model(batch).target.trace
    assert torch.equal(own.keys, other.keys)
    assert torch.equal(own.values, other.values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_method": "rkv"}, "is an encoder (bert), and --kv_method rkv looks at attention"),
        ({"kv_method": "knockout"}, "is an encoder (bert), and --kv_method knockout scores its"),
        ({"kv_loss": "structural", "kv_layer_std": False}, "--kv_loss structural looks at"),
        ({"codi_weight": 1.0}, "--codi_weight matches its hidden state"),
        ({**FAMILIES, "fusion": "min_ce"}, "--fusion min_ce weighs its likelihood"),
        ({"model_name": "kava/shell-bert"}, "'kava/shell-bert' is an encoder, which can be a"),
    ],
)
def test_what_an_encoder_does_not_give_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        built(tmp_path / "run", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
