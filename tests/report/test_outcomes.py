"""The page's outcomes beside the accuracy: runs that learned, and steps to a target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from claims import check_words
from kava.report import judge, load_study
from kava.report.outcome_tables import learned_table, steps_table
from kava.report.outcomes import learned_sentence
from kava.report.page import write_report
from kava.statistics import holm
from report.made_up import sha256, write_study

LEARNED = {"flat": 1.0, "per_head": 1.0, "wrong": 0.04}


@pytest.fixture(autouse=True)
def no_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kava.statistics.seeds.bca_interval", lambda *_, **__: None)


def rewrite_curves(folder: Path, arm: str, curves: Sequence[Sequence[float]]) -> None:
    """Give the runs of an arm other accuracies while training."""
    for seed, curve in enumerate(curves):
        run = folder / f"runs/{arm}/seed-{seed}"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        values = iter(curve)
        for line in lines:
            if "eval_accuracy" in line:
                line["eval_accuracy"] = next(values)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = json.loads((run / "result.json").read_text())
        result["files"]["metrics.jsonl"] = sha256(run / "metrics.jsonl")
        (run / "result.json").write_text(json.dumps(result))


def test_the_table_counts_the_runs_that_learned(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, LEARNED, spread=0.0))
    judgement = judge(study)
    table = learned_table(study, judgement)
    assert table is not None
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["flat"] == ["5 of 5", "–", "–", "–", "–"]
    assert rows["per_head"][0] == "5 of 5"
    assert rows["wrong"] == ["0 of 5", "−100.0 to −38.8", "0.002", "0.0039", "0.062"]
    said = learned_sentence(study)
    check_words(said)
    assert "at least 52 % right (half-way" in said
    assert "No run of `wrong` did." in said
    kinds = {one.arm.name: one.verdict.kind for one in judgement.compared}
    assert kinds == {"per_head": "undecided", "wrong": "worse"}  # five of five exclude no gain


def test_accuracies_of_degree_have_no_such_table(won: Path) -> None:
    study = load_study(won)
    assert learned_table(study, judge(study)) is None
    assert learned_sentence(study) == ""


def test_the_plan_says_what_counts_as_learned(tmp_path: Path) -> None:
    abilities = {"flat": 0.6, "per_head": 0.75, "wrong": 0.45}
    study = load_study(write_study(tmp_path / "a", abilities, learned=0.7))
    table = learned_table(study, judge(study))
    assert table is not None
    assert [row[1].text for row in table.rows] == ["0 of 5", "5 of 5", "0 of 5"]
    assert "at least 70 % right (as the plan says)" in learned_sentence(study)
    study = load_study(write_study(tmp_path / "b", LEARNED, spread=0.0, learned=0.0))
    assert not study.levels.are_two


def test_the_second_outcome_is_corrected_together_with_the_first(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"flat": 0.7, "per_head": 0.7, "wrong": 0.6}, steps_to=0.9)
    rewrite_curves(folder, "flat", [[0.1, 0.2, 0.5, 0.8]] * 4 + [[0.1, 0.2, 0.3, 0.4]])
    rewrite_curves(folder, "per_head", [[0.75, 0.8, 0.8, 0.8]] * 5)
    study = load_study(folder)
    judgement = judge(study)
    per_head, wrong = judgement.compared
    assert per_head.steps is not None
    assert wrong.steps is not None
    assert per_head.steps.target == pytest.approx(0.72)
    assert [run.step for run in per_head.steps.found.baseline] == [200] * 5
    assert [run.reached for run in per_head.steps.found.baseline] == [True] * 4 + [False]
    assert per_head.steps.found.mean_treatment == 50
    p = [one.comparison.p for one in judgement.compared]
    p += [one.steps.found.p for one in judgement.compared if one.steps]
    adjusted = holm(p)
    assert [one.p_adjusted for one in judgement.compared] == adjusted[:2]
    assert [one.steps.p_adjusted for one in judgement.compared if one.steps] == adjusted[2:]
    assert per_head.steps.word(0.05) == "earlier"
    assert wrong.steps.word(0.05) == "undecided"
    for one in judgement.compared:
        check_words(one.said(0.05))
    table = steps_table(study, judgement)
    assert table is not None
    assert table.rows[1][1].text == ">200 >200 >200 >200 >200"
    page = write_report(folder)
    text = page.with_name("report.md").read_text()
    assert "**Steps to the target**" in text
    assert "Earlier (p = " in text
    assert "and both outcomes" in text


def test_without_the_key_no_steps_are_compared(won: Path) -> None:
    study = load_study(won)
    judgement = judge(study)
    assert steps_table(study, judgement) is None
    assert all(one.steps is None for one in judgement.compared)


def test_a_run_without_evaluations_has_no_steps(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path, {"flat": 0.7, "per_head": 0.7, "wrong": 0.6}, seeds=range(2), steps_to=0.9
    )
    rewrite_curves(folder, "flat", [[None] * 4])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="runs/flat/seed-0 has no eval_accuracy"):
        judge(load_study(folder))
