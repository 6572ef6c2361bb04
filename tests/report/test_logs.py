"""Logs are read whole, or named and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kava.report import load_study
from report.made_up import sha256, write_study

RUN = "runs/flat/seed-1"


@pytest.fixture
def study(won: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(won, tmp_path / "study", ignore=shutil.ignore_patterns("report")))


def rename_in_result(study: Path, file: str) -> None:
    """Let the result name the file as it is now, so that only its content can be wrong."""
    path = study / RUN / "result.json"
    result = json.loads(path.read_text())
    result["files"][file] = sha256(study / RUN / file)
    path.write_text(json.dumps(result))


def test_a_whole_study_is_read(won: Path) -> None:
    study = load_study(won)
    assert [arm.name for arm in study.arms] == ["flat", "per_head", "wrong", "raw"]
    assert study.baseline.correct_SN.shape == (5, 200)
    assert study.unfinished == ()  # an untrained reference needs one run only
    assert study.is_complete
    steps, values = study.baseline.runs[0].curve("eval_accuracy")
    assert steps == [50, 100, 150, 200]
    assert values[-1] == pytest.approx(study.baseline.runs[0].accuracy)


def test_answers_are_paired_by_id_whatever_the_order(won: Path, study: Path) -> None:
    path = study / RUN / "items.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    rename_in_result(study, "items.jsonl")
    assert (load_study(study).baseline.correct_SN == load_study(won).baseline.correct_SN).all()


def cut(study: Path) -> None:
    path = study / RUN / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])


def edit(study: Path) -> None:
    path = study / RUN / "items.jsonl"
    path.write_text(path.read_text().replace('"correct": false', '"correct": true', 1))


def edit_and_hide(study: Path) -> None:
    edit(study)
    rename_in_result(study, "items.jsonl")


def remove(study: Path) -> None:
    (study / RUN / "alignment.json").unlink()


def ask_others(study: Path) -> None:
    path = study / RUN / "items.jsonl"
    path.write_text(path.read_text().replace("q007", "other"))
    rename_in_result(study, "items.jsonl")


def change_the_plan(study: Path) -> None:
    path = study / "plan.lock.json"
    path.write_text(path.read_text().replace('"minimum_effect": 0.05', '"minimum_effect": 0.01'))


def add_a_seed(study: Path) -> None:
    shutil.copytree(study / RUN, study / "runs/flat/seed-9")


def swap_runs(study: Path) -> None:
    shutil.rmtree(study / RUN)
    shutil.copytree(study / "runs/flat/seed-2", study / RUN)


def cut_the_result(study: Path) -> None:
    path = study / RUN / "result.json"
    path.write_text(path.read_text()[:100])


@pytest.mark.parametrize(
    ("damage", "named", "complaint"),
    [
        (cut, f"{RUN}/metrics.jsonl", "is cut or damaged: line 8"),
        (edit, f"{RUN}/items.jsonl", "was cut or edited after its run"),
        (edit_and_hide, f"{RUN}/result.json", "its items say"),
        (remove, f"{RUN}/alignment.json", "is missing"),
        (ask_others, f"{RUN}/items.jsonl", "answers other items than flat/seed-0: 'other'"),
        (change_the_plan, "plan.lock.json", "was edited after it was written"),
        (add_a_seed, "runs/flat/seed-9", "is no run of the plan"),
        (swap_runs, f"{RUN}/result.json", "its seed is 2, not 1"),
        (cut_the_result, f"{RUN}/result.json", "is cut or damaged"),
    ],
)
def test_damage_is_named_in_one_line(
    study: Path, damage: Callable[[Path], None], named: str, complaint: str
) -> None:
    damage(study)
    with pytest.raises(ValueError, match=complaint) as error:
        load_study(study)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no study"):
        load_study(tmp_path)


def test_the_state_of_every_run_is_told(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"flat": 0.5, "per_head": 0.5, "wrong": 0.5}, seeds=range(3))
    (folder / "runs/flat/seed-0/result.json").unlink()
    shutil.rmtree(folder / "runs/flat/seed-1")
    path = folder / "runs/flat/seed-2/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "finished": False, "reason": "the loss is nan"}))
    study = load_study(folder)
    assert [run.state for run in study.baseline.runs] == ["running", "missing", "failed"]
    assert len(study.unfinished) == 3
    assert not study.is_complete
