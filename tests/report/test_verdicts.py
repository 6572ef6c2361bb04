"""The page says what the logs carry, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.report import judge, load_study, write_report
from kava.report.judgement import Judgement
from kava.report.kinds import check_same_kind, differing_settings, groups_of_kind
from report.made_up import ROLES, write_study


def judged(folder: Path, abilities: dict[str, float], **options: object) -> Judgement:
    return judge(load_study(write_study(folder, abilities, **options)))  # type: ignore[arg-type]


def kinds(judgement: Judgement) -> dict[str, str]:
    return {one.arm.name: one.verdict.kind for one in judgement.compared}


def test_a_clear_win_is_found_and_its_control_bears_it_out(won: Path) -> None:
    judgement = judge(load_study(won))
    assert kinds(judgement) == {"per_head": "better", "wrong": "worse"}
    assert judgement.state == "found"
    assert "`per_head` answers" in judgement.headline
    assert [trust.holds for trust in judgement.trust] == [True]
    areas = judgement.compared[0].areas
    assert areas is not None
    assert areas.low > 0
    assert areas.p_adjusted < 0.05


def test_the_wrong_samples_cache_as_treatment_is_no_better(tmp_path: Path) -> None:
    judgement = judged(
        tmp_path,
        {"flat": 0.6, "per_head": 0.6, "wrong": 0.6},
        same={"per_head": "wrong"},
    )
    assert kinds(judgement) == {"per_head": "no better", "wrong": "no better"}
    assert judgement.state == "none"
    assert judgement.trust == ()  # there is no gain to doubt


def test_identical_arms_do_not_differ(tmp_path: Path) -> None:
    judgement = judged(
        tmp_path, {"flat": 0.6, "per_head": 0.6, "wrong": 0.3}, same={"per_head": "flat"}
    )
    (per_head, _) = judgement.compared
    assert per_head.comparison.difference == 0
    assert per_head.p_adjusted == 1
    assert per_head.verdict.kind == "no better"
    assert judgement.headline.startswith("`per_head` is not shown to be better than `flat`.")


def test_a_difference_that_may_be_chance_is_no_win(tmp_path: Path) -> None:
    judgement = judged(
        tmp_path, {"flat": 0.5, "per_head": 0.56, "wrong": 0.3}, seeds=range(2), spread=0.1
    )
    assert kinds(judgement)["per_head"] == "undecided"
    assert judgement.state == "none"
    assert "not shown to be better" in judgement.headline
    assert "four times in five" in judgement.headline


def test_a_gain_that_the_control_shares_is_in_doubt(tmp_path: Path) -> None:
    judgement = judged(tmp_path, {"flat": 0.5, "per_head": 0.7, "wrong": 0.7})
    assert judgement.state == "doubtful"
    assert "cannot be put down to the sample's own cache" in judgement.headline
    said = [trust.sentence for trust in judgement.trust if not trust.holds]
    assert any("yet is better than the baseline `flat`" in sentence for sentence in said)
    assert any("`per_head` is not shown to be better" in sentence for sentence in said)


def test_a_control_that_teaches_more_than_no_teacher_is_named(tmp_path: Path) -> None:
    judgement = judged(tmp_path, {"none": 0.3, "per_head": 0.8, "wrong": 0.5}, roles={
        "none": "baseline", "per_head": "treatment", "wrong": "control"
    })  # fmt: skip
    said = [trust.sentence for trust in judgement.trust if not trust.holds]
    assert len(said) == 1
    assert "yet is better than `none`, which has no teacher" in said[0]
    assert judgement.state == "found"  # per_head is better than wrong as well


def test_there_is_no_verdict_while_runs_are_missing(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"flat": 0.5, "per_head": 0.9, "wrong": 0.3}, seeds=range(2))
    (folder / "runs/wrong/seed-1/result.json").unlink()
    judgement = judge(load_study(folder))
    assert judgement.state == "open"
    assert judgement.compared == ()
    assert judgement.headline.startswith("No verdict yet: 5 of 6 runs are finished.")


def test_a_plan_without_a_test_is_described_only(tmp_path: Path) -> None:
    judgement = judged(
        tmp_path, {"flat": 0.5, "per_head": 0.9, "wrong": 0.3}, seeds=range(1), test="none"
    )
    assert judgement.state == "open"
    assert "`test: none`" in judgement.headline


def test_losses_against_different_targets_are_not_compared(won: Path) -> None:
    flat, per_head, wrong, _ = load_study(won).arms
    assert groups_of_kind("eval_kv", [flat, per_head, wrong]) == {
        "flat": "a", "per_head": "b", "wrong": "c",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"flat and that of per_head are of different kinds.*mode"):
        check_same_kind("eval_kv", flat, per_head)
    check_same_kind("eval_accuracy", flat, per_head)
    check_same_kind("eval_ce", flat, per_head)
    with pytest.raises(ValueError, match="none of the quantities"):
        differing_settings("charm", flat, per_head)


def test_the_settings_that_kinds_know_are_settings() -> None:
    from dataclasses import fields

    from kava.report.kinds import STUDENT, TRAINING_ONLY
    from kava.train.config import TrainConfig

    assert {field.name for field in fields(TrainConfig)} >= TRAINING_ONLY | STUDENT


def test_an_arm_of_fewer_seeds_is_compared_over_those(tmp_path: Path) -> None:
    abilities = {"flat": 0.5, "per_head": 0.9, "wrong": 0.5, "none": 0.5}
    roles = {**ROLES, "none": "reference"}
    small = write_study(tmp_path / "small", abilities, roles=roles, seeds=range(3))
    large = write_study(
        tmp_path / "large",
        abilities,
        roles=roles,
        seeds=range(6),
        fewer={"per_head": 3, "wrong": 3, "none": 3},
    )
    expected, found = judge(load_study(small)), judge(load_study(large))
    assert [one.comparison for one in found.compared] == [
        one.comparison for one in expected.compared
    ]
    assert len(found.untaught) == 1  # the reference counts, though it has fewer seeds
    assert load_study(large).plan.fewest_seeds == 3
    assert "What 3 seeds can say" in write_report(large).read_text(encoding="utf-8")
