"""Training in a shared space: its term, its fit, its numbers, and what a run does with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, metrics, run, small, weights
from safetensors.torch import load_file

from kava.shared import SHARED_LOSSES
from kava.student.whole import ALIGNER_FILE
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from kava.train.items import count_items
from kava.train.space_fit import MOST_POSITIONS, spread_columns

GPT2, LLAMA = "kava/shell-gpt2-teacher", "kava/shell-teacher"
SPACE: dict[str, Any] = {
    "model_name": LLAMA,
    "teachers": [f"gpt2={GPT2}", f"llama={LLAMA}"],
    "kv_method": "full",
    "alignment_mode": "structured",
    "calibration_samples": 64,
    "dataset_name": "kava/shell-game?num_train=160",
    "text_ce_weight": 0.0,
    "shared_space_weight": 5.0,
    "shared_space_dim": 8,
    "kv_weight": 0.0,
    "kv_layer_std": False,
    "max_steps": 2,
}
ONE = {"teachers": None, "teacher_name": GPT2}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fit, which none of these tests asks about."""
    monkeypatch.setattr("kava.shared.fit.NUM_STEPS", 5)


def shared(output_dir: Path | str = "unused", **changes: Any) -> TrainConfig:
    return small(output_dir, **{**SPACE, **changes})


def built(folder: Path, **changes: Any) -> Run:
    return build_run(shared(folder, **changes))


def batch_of(one: Run, size: int = 8) -> Any:
    return one.trainer.data_collator(one.data.train[:size])


@pytest.mark.parametrize("loss", SHARED_LOSSES)
@pytest.mark.parametrize("teachers", [{}, ONE], ids=["two", "one"])
def test_the_term_trains_the_student_and_nothing_else(
    tmp_path: Path, loss: str, teachers: dict[str, Any]
) -> None:
    one = built(tmp_path, shared_space_loss=loss, ce_weight=0.0, **teachers)
    model = one.trainer.model.eval()
    forward = model(batch_of(one))
    assert forward.weighted.keys() >= {"shared_space"}
    forward.weighted["shared_space"].backward()
    moved = {
        name.split(".")[0]
        for name, part in model.named_parameters()
        if part.grad is not None and part.grad.abs().sum() > 0
    }
    assert moved == {"student"}
    assert one.space is not None
    assert len(one.space.reports) == (1 if teachers else 2)


def test_the_teachers_points_are_mixed_as_their_caches(tmp_path: Path) -> None:
    one = built(tmp_path, fixed_weights=[0.7, 0.3])
    model = one.trainer.model.eval()
    batch = batch_of(one)
    both = model(batch).points
    alone = []
    for n in range(2):
        weights = [float(n == 0), float(n == 1)]
        other = built(tmp_path / str(n), fixed_weights=weights)
        alone.append(other.trainer.model.eval()(batch).points)
    expected = 0.7 * alone[0].teacher + 0.3 * alone[1].teacher
    torch.testing.assert_close(both.teacher, expected)
    torch.testing.assert_close(both.student, alone[0].student)


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_gradients_do_not_depend_on_the_batchs_split(tmp_path: Path, loss: str) -> None:
    whole, parts = (built(tmp_path / x, shared_space_loss=loss) for x in ("whole", "parts"))
    batch = batch_of(whole)
    counts = torch.tensor(count_items(batch, whole.trainer.config)).float()
    whole.trainer.model.eval()(batch).loss.backward()
    for start in range(0, 8, 4):
        chunk = parts.trainer.data_collator(parts.data.train[start : start + 4])
        parts.trainer.model.eval()(chunk, counts).loss.backward()
    for own, other in zip(whole.trainer.model.parameters(), parts.trainer.model.parameters()):
        if own.grad is not None:
            torch.testing.assert_close(other.grad, own.grad, atol=2e-5, rtol=1e-3)


def test_the_wrong_sample_gives_its_points(tmp_path: Path) -> None:
    own, wrong = (built(tmp_path / str(x), wrong_sample=x) for x in (False, True))
    batch = batch_of(own)
    ours, theirs = (x.trainer.model.eval()(batch).points for x in (own, wrong))
    torch.testing.assert_close(theirs.teacher, ours.teacher.roll(1, 0), atol=1e-4, rtol=1e-3)


def test_a_run_writes_the_spaces_numbers_and_verdict(tmp_path: Path) -> None:
    one = run(shared(tmp_path, eval_size=16, eval_first=True, max_new_tokens=2))
    rows = [row for row in all_rows(tmp_path) if "eval_ce" in row]
    assert [row["step"] for row in rows] == [0, 2]
    names = {"own", "wrong_sample", "spread_student", "spread_teacher", "erank_student"}
    for row in rows:
        assert {f"eval_shared_space_{name}" for name in names} <= row.keys()
        # the slots of neighbours are the same ones here: two ways to the same number
        assert row["eval_shared_space_own"] == pytest.approx(row["eval_shared_space"], rel=1e-4)
        assert "eval_gradient_shared_space" in row
    assert all("shared_space" in row for row in metrics(tmp_path))
    said = one.trainer.guard.last_word()
    assert said is not None
    assert "the shared space " in said
    recorded = json.loads((tmp_path / "checkpoint-2" / "recording.json").read_text())
    assert recorded["verdict"]["space"] == one.trainer.guard.space
    again = build_run(
        shared(tmp_path, eval_size=16, eval_first=True, max_new_tokens=2, resume=True)
    )
    again.trainer.guard.restore(recorded["verdict"])
    assert again.trainer.guard.space == one.trainer.guard.space


def test_resume_goes_on_exactly_with_encoders_that_learn(tmp_path: Path) -> None:
    options = {"shared_space_fit": "joint", "max_steps": 4, "kv_weight": 1.0}
    whole = run(shared(tmp_path / "whole", **options))
    run(shared(tmp_path / "parts", **{**options, "save_steps": 2}))
    for file in (tmp_path / "parts" / "checkpoint-4").iterdir():
        file.unlink()
    (tmp_path / "parts" / "checkpoint-4").rmdir()
    parts = run(shared(tmp_path / "parts", resume=True, **{**options, "save_steps": 2}))
    assert parts.space is None  # of the checkpoint, not fitted again
    ours, theirs = weights(parts.trainer.model), weights(whole.trainer.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_fitted_encoders_are_frozen_and_stored(tmp_path: Path) -> None:
    before = weights(built(tmp_path / "x").trainer.model)
    after = run(shared(tmp_path / "y"))
    now = weights(after.trainer.model)
    encoders = [name for name in now if name.startswith("space.")]
    assert any(name.endswith(".std") for name in encoders)
    assert all(torch.equal(now[name], before[name]) for name in encoders)
    stored = load_file(tmp_path / "y" / "checkpoint-2" / ALIGNER_FILE)
    assert set(encoders) <= stored.keys()
    joint = run(shared(tmp_path / "z", shared_space_fit="joint"))
    moved = weights(joint.trainer.model)
    start = weights(built(tmp_path / "w", shared_space_fit="joint").trainer.model)
    assert not torch.equal(moved["space.student.out.weight"], start["space.student.out.weight"])


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "union"},
        {"fusion": "disagreement"},
        {"fusion": "similarity", "fusion_per_layer": True},
        {"fusion": "learnable", "router_learning": "gradient"},
        {"fusion": "learnable", "router_learning": "policy"},
        {"student": "explicit", "kv_method": "uniform"},
        {**ONE, "student": "explicit", "kv_method": "uniform"},
        {**ONE, "distill_layers": "1"},
        {**ONE, "kv_weight": 1.0, "codi_weight": 1.0},
        {**ONE, "use_segment_resampling": True},
        {"dataset_name": "kava/shell-game?form=each&num_train=160", "kv_method": "positions"},
    ],
    ids=str,
)
def test_it_works_beside_everything_else(tmp_path: Path, changes: dict[str, Any]) -> None:
    one = run(shared(tmp_path, eval_size=8, max_new_tokens=2, **changes))
    (row,) = [row for row in all_rows(tmp_path) if "eval_ce" in row]
    assert row["eval_shared_space"] > 0
    assert one.trainer.model.space is not None
    if changes.get("router_learning") == "gradient":
        moved = weights(one.trainer.model.router)
        start = weights(built(tmp_path / "x", **changes).trainer.model.router)
        assert any(not torch.equal(moved[name], start[name]) for name in moved)


def test_columns_are_spread_over_the_valid_ones() -> None:
    """Oracle: sample by sample."""
    torch.manual_seed(0)
    mask = torch.rand(20, 60) < torch.linspace(0, 1, 20)[:, None]
    columns, there = spread_columns(mask)
    assert columns.shape[1] == MOST_POSITIONS
    for row, places, valid in zip(mask, columns, there):
        own = row.nonzero()[:, 0].tolist()
        taken = min(len(own), MOST_POSITIONS)
        expected = [own[r * len(own) // taken] for r in range(taken)]
        assert places[valid].tolist() == expected
        assert int(valid.sum()) == taken


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teachers": None}, "fits encoders to frozen teachers, and this run has none"),
        ({**ONE, "key_space": "student"}, "--key_space student leaves the rotation"),
        ({**ONE, "align_direction": "student_to_teacher"}, "compares in the geometry of one"),
        ({"distill_k_only": True}, "--distill_k_only leaves the values out"),
        ({"shared_space_loss": "infonce"}, "--shared_space_loss 'infonce' is unknown"),
        ({"shared_space_dim": 1}, "--shared_space_dim 1 must be from 2 to"),
        ({"target_len": 0}, "--target_len 0 leaves no latent to match: pass --shared_space_weight"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        shared(**changes)
    assert "\n" not in str(error.value)


def test_too_few_samples_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="raise --calibration_samples"):
        built(tmp_path, calibration_samples=1, aligner_fit="frozen")


@pytest.mark.parametrize(
    "changes",
    [{"shared_space_dim": 8}, {"shared_space_loss": "mse"}, {"shared_space_fit": "joint"}],
)
def test_a_flag_of_the_space_needs_the_space(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is read where --shared_space_weight is above 0"):
        small(**changes)
