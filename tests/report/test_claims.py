"""What a study's page says is true of its logs, whatever came out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from claims import check_words, excludes
from kava.report import judge, load_study
from kava.report.accounts import budget_sentence
from kava.report.judgement import Judgement
from kava.report.logs import StudyLogs
from kava.report.words import power_sentence, seeds_sentence
from kava.statistics.verdict import SEEDS_TO_RULE_OUT, unseen_share
from kava.study.plan import Plan
from kava.study.plan_file import read_plan
from kava.study.tables import detectable_lines
from report.made_up import made_up_plan, write_study

ROLES = {"flat": "baseline", "per_head": "treatment", "random": "treatment", "wrong": "control"}
SITUATIONS = {
    "gain": {"flat": 0.4, "per_head": 0.8, "random": 0.4, "wrong": 0.3},
    "gain of the control too": {"flat": 0.4, "per_head": 0.8, "random": 0.8, "wrong": 0.8},
    "gain of the control alone": {"flat": 0.3, "per_head": 0.3, "random": 0.2, "wrong": 0.7},
    "nothing": {"flat": 0.5, "per_head": 0.5, "random": 0.5, "wrong": 0.5},
    "loss": {"flat": 0.7, "per_head": 0.3, "random": 0.7, "wrong": 0.2},
    "chance": {"flat": 0.04, "per_head": 0.04, "random": 0.045, "wrong": 0.04},
    "all right": {"flat": 1.0, "per_head": 1.0, "random": 1.0, "wrong": 1.0},
    "all wrong": {"flat": 0.0, "per_head": 0.0, "random": 0.0, "wrong": 0.0},
}

OF_FIVE_SEEDS = ("gain", "gain of the control too", "nothing", "all right")


@pytest.fixture(autouse=True)
def no_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kava.statistics.seeds.bca_interval", lambda *_, **__: None)


def sentences(study: StudyLogs, judgement: Judgement) -> list[str]:
    return [
        judgement.headline,
        *(trust.sentence for trust in judgement.trust),
        *(one.verdict.sentence for one in judgement.compared),
        power_sentence(study, judgement.compared),
        seeds_sentence(study),
        budget_sentence(study),
    ]


@pytest.mark.parametrize(
    ("situation", "num_seeds"),
    [*((name, 2) for name in SITUATIONS), *((name, 5) for name in OF_FIVE_SEEDS)],
)
def test_every_sentence_is_true_of_the_logs(situation: str, num_seeds: int, tmp_path: Path) -> None:
    spread = 0.0 if situation.startswith("all") else 0.02
    folder = write_study(
        tmp_path, SITUATIONS[situation], roles=ROLES, seeds=range(num_seeds), spread=spread
    )
    study = load_study(folder)
    judgement = judge(study)
    kinds = {one.arm.name: one.verdict.kind for one in judgement.compared}
    for sentence in sentences(study, judgement):
        check_words(sentence)
        if num_seeds < SEEDS_TO_RULE_OUT:
            assert not excludes(sentence), sentence
    gained = [name for name in ("per_head", "random") if kinds[name] == "better"]
    check_doubts(judgement, gained)
    check_headline(study, judgement, gained)
    check_state(judgement, gained)


def check_doubts(judgement: Judgement, gained: Sequence[str]) -> None:
    """Only a gain is doubted, and only of the arm that has it."""
    doubts = [trust.sentence for trust in judgement.trust if not trust.holds]
    assert bool(doubts) <= bool(gained)
    for doubt in doubts:
        arm = re.match(r"`(\w+)` is not shown", doubt)
        assert arm is None or arm[1] in gained
    for trust in judgement.trust:
        if trust.holds:
            arm, control = re.findall(r"`(\w+)`", trust.sentence)[:2]
            (one,) = (c for c in judgement.controlled if c.arm.name == arm)
            assert (one.against.name, one.verdict.kind) == (control, "better")


def check_headline(study: StudyLogs, judgement: Judgement, gained: Sequence[str]) -> None:
    """It says better only of arms that are, and quotes their accuracies."""
    headline = judgement.headline
    accuracies = {arm.name: arm.accuracy or 0.0 for arm in study.arms}
    for arm, share in re.findall(r"`(\w+)` (?:answers )?([\d.]+) %", headline):
        assert f"{100 * accuracies[arm]:.1f}" == share
    if "None of the" in headline:
        assert not gained
        kinds = {one.arm.name: one.verdict.kind for one in judgement.compared}
        for kind, names in re.findall(r"(no better|undecided|worse): ([^;)]*)", headline):
            assert {kinds[name] for name in re.findall(r"`(\w+)`", names)} == {kind}
    else:
        assert gained
        assert all(f"`{name}`" in headline for name in gained)


def check_state(judgement: Judgement, gained: Sequence[str]) -> None:
    explained = {
        one.arm.name for one in judgement.controlled if one.verdict.kind != "better"
    } & set(gained)
    expected = "none" if not gained else "found" if set(gained) - explained else "doubtful"
    assert judgement.state == expected
    assert all(f"`{name}` is not shown" in judgement.headline for name in explained)


def bare_study(num_seeds: int, test: str = "crossed") -> StudyLogs:
    plan = read_plan(
        made_up_plan(["flat", "per_head", "wrong"], ROLES, range(num_seeds), test=test)
    )
    return StudyLogs(folder=Path(), plan=plan, lock={}, arms=(), ids=())


@pytest.mark.parametrize("num_seeds", range(2, 21))
def test_the_page_says_what_so_many_seeds_can_say(num_seeds: int) -> None:
    said = seeds_sentence(bare_study(num_seeds))
    check_words(said)
    assert said.startswith(f"What {num_seeds} seeds can say")
    assert f"up to {100 * unseen_share(num_seeds):.0f} % of such runs" in said
    assert ("no gain is called ruled out" in said) == (num_seeds < SEEDS_TO_RULE_OUT)


def test_a_test_over_items_says_nothing_of_other_runs() -> None:
    assert "of other runs of an arm it says nothing" in seeds_sentence(bare_study(3, "items"))


def test_a_test_of_ranks_is_not_taken_for_runs_that_do_not_vary() -> None:
    said = power_sentence(bare_study(5, "wilcoxon"), ())
    assert "no smallest detectable effect is known" in said
    assert "do not vary" not in said


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 20])
@pytest.mark.parametrize(
    "detectable", [(None, None), (0.02, 0.02), (0.02, 0.3), (0.3, 1.4), (1.4, 1.4)]
)
def test_the_sentence_of_power_is_true_of_its_numbers(
    num_seeds: int, detectable: tuple[float | None, float | None], won: Path
) -> None:
    compared = [
        replace(
            one, comparison=replace(
                one.comparison, num_seeds=num_seeds, minimum_detectable=least
            ),
        )
        for one, least in zip(judge(load_study(won)).compared, detectable)
    ]  # fmt: skip
    said = power_sentence(bare_study(num_seeds), compared)
    check_words(said)
    known = [least for least in detectable if least is not None]
    assert ("do not vary" in said) == (not known)
    assert ("no difference would be found" in said) == (bool(known) and min(known) > 1)
    assert ("no more than the 5.0 points" in said) == (bool(known) and max(known) <= 0.05)
    if known and min(known) <= 1:
        assert f"{num_seeds} seeds an arm" in said
        assert "at the spread of these runs" in said


def test_one_arm_alone_is_not_said_to_be_as_the_others(tmp_path: Path) -> None:
    folder = write_study(tmp_path, SITUATIONS["gain"], roles=ROLES, seeds=range(2))
    study = load_study(folder)
    assert "All compared arms" in budget_sentence(study)
    assert budget_sentence(replace(study, arms=study.arms[:1])) == ""


@pytest.mark.parametrize("test", ["crossed", "wilcoxon"])
def test_the_status_does_not_take_ranks_for_answers_that_do_not_vary(
    test: str, tmp_path: Path
) -> None:
    folder = write_study(tmp_path, SITUATIONS["gain"], roles=ROLES, seeds=range(3), test=test)
    plan: Plan = load_study(folder).plan
    done = [(arm.name, seed) for arm in plan.arms for seed in plan.seeds]
    lines = detectable_lines(plan, folder, done)
    assert len(lines) == len(plan.compared)
    for line in lines:
        check_words(line)
        assert ("of a test of ranks" in line) == (test == "wilcoxon")
