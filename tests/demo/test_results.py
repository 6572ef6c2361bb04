"""What the numbers amount to: intervals, expectations and verdicts on made-up runs."""

from dataclasses import asdict, replace

import pytest
from scipy.stats import binomtest

from demo.conftest import MakeLogs, MakeResults
from kava.demo.arms import EVICTION, MAIN
from kava.demo.results import results_of, summarize
from kava.demo.verdicts import (
    eviction_expectations,
    eviction_verdict,
    main_expectations,
    main_verdict,
    reference_sentence,
)

Good = dict[str, list[float]]


def test_results_are_read_from_the_logs_of_the_runs(
    make_results: MakeResults, make_logs: MakeLogs, good: Good
) -> None:
    measured = {"r_squared": 0.5, "kv": 0.1, "kv_wrong_sample": 0.3, "aligner_parameters": 7}
    results = make_results(good, measured={"kv": measured})
    costs = {
        f"{one.arm}/seed-{one.seed}": {
            "forward_passes": one.forward_passes, "seconds_per_answer": one.seconds_per_answer,
        }
        for one in results
    }  # fmt: skip
    assert results_of(make_logs(results), costs) == results
    assert list(asdict(results[0])) == [
        "arm", "seed", "accuracy", "num_items", "forward_passes", "seconds_per_answer",
        "train_seconds", "aligner_parameters", "r_squared", "kv", "kv_wrong_sample",
    ]  # fmt: skip


def test_an_arm_is_the_mean_of_its_seeds_with_the_interval_of_one_seeds_questions(
    make_results: MakeResults,
) -> None:
    (summary,) = summarize(MAIN.arms, make_results({"codi": [0.03, 0.05]}, num_items=500))
    assert summary.accuracy == pytest.approx(0.04)
    expected = binomtest(20, 500).proportion_ci(method="wilson")
    assert (summary.low, summary.high) == pytest.approx((expected.low, expected.high))
    assert summary.forward_passes == pytest.approx(3.5)


def test_what_is_unknown_of_a_seed_is_left_out_of_the_mean(make_results: MakeResults) -> None:
    results = make_results({"kv": [1.0, 1.0], "ce": [0.04]})
    results[0] = replace(results[0], kv=0.2, r_squared=0.5, aligner_parameters=7)
    ce, kv = summarize(MAIN.arms, results)
    assert (kv.kv, kv.r_squared, kv.aligner_parameters) == (0.2, 0.5, 7)
    assert (ce.kv, ce.r_squared, ce.aligner_parameters) == (None, None, 0)


def test_summaries_follow_the_arms_not_the_results(make_results: MakeResults, good: Good) -> None:
    results = make_results(good)[::-1]
    assert [s.arm.name for s in summarize(MAIN.arms, results)] == [a.name for a in MAIN.arms]


def expectations(make_results: MakeResults, accuracies: Good) -> list[bool | None]:
    return [e.met for e in main_expectations(summarize(MAIN.arms, make_results(accuracies)))]


def test_all_that_is_expected_is_met(make_results: MakeResults, good: Good) -> None:
    assert expectations(make_results, good) == [True, True, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kv": [1.0, 0.949]}, [False, True, True]),
        ({"kv_jacobi": [0.949, 1.0]}, [False, True, True]),
        ({"ce": [0.15]}, [True, False, True]),
        ({"codi": [0.04, 0.15]}, [True, False, True]),
        ({"written": [0.989]}, [True, True, False]),
        ({"pause": [0.9]}, [True, True, True]),
    ],
)
def test_one_bad_seed_is_enough_to_miss(
    make_results: MakeResults, good: Good, change: Good, expected: list[bool]
) -> None:
    assert expectations(make_results, good | change) == expected


def test_arms_that_were_not_run_meet_nothing(make_results: MakeResults) -> None:
    found = main_expectations(summarize(MAIN.arms, make_results({"kv": [1.0]})))
    assert [e.met for e in found] == [True, None, None]
    assert [str(e).split(":")[0] for e in found] == ["met", "not run", "not run"]


def test_the_verdict_says_what_was_seen(make_results: MakeResults, good: Good) -> None:
    verdict = main_verdict(summarize(MAIN.arms, make_results(good)))
    assert "made the student reason in latent tokens: each of the 5 runs" in verdict
    assert "at least 95.1 %" in verdict
    assert "none of the 5 runs gets beyond 5.2 %" in verdict


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kv": [0.4, 0.5], "kv_jacobi": [0.3, 0.2], "codi_kv": [0.1, 0.1]}, "did not make"),
        ({"kv": [0.4, 1.0]}, "in 4 of 5 runs"),
        ({"kv": [0.4, 1.0]}, "kv 40.0 %, 100.0 %"),
        ({"ce": [0.6]}, "Without it, ce 60.0 % is more than 10 points away from a guess"),
        ({"ce": [0.6], "none": [0.5]}, "none 50.0 %; ce 60.0 % are more than 10 points"),
    ],
)
def test_the_verdict_does_not_claim_what_was_not_seen(
    make_results: MakeResults, good: Good, change: Good, words: str
) -> None:
    verdict = main_verdict(summarize(MAIN.arms, make_results(good | change)))
    assert words in verdict
    assert ("none of the 5 runs" in verdict) == ("ce" not in change)


def test_one_side_alone_gets_no_verdict(make_results: MakeResults) -> None:
    verdict = main_verdict(summarize(MAIN.arms, make_results({"kv": [1.0]})))
    assert verdict == "Too few arms were run to compare: kv 100.0 %."


def test_the_eviction_verdict_tells_rules_that_work_from_those_that_do_not(
    make_results: MakeResults,
) -> None:
    found = {
        "positions": [0.97, 0.95],
        "rkv": [0.04, 0.05],
        "rkv_official": [0.03, 0.04],
        "h2o": [0.4, 0.5],
        "random": [0.3, 0.04],
        "uniform": [0.04, 0.04],
    }
    verdict = eviction_verdict(summarize(EVICTION.arms, make_results(found)))
    assert "right 96.0 % of the time (positions 97.0 %, 95.0 %)" in verdict
    assert "Of the 5 rules that have to choose, with every seed above a guess (4.2 %)" in verdict
    assert "h2o (45.0 %)." in verdict
    assert "random (17.0 %)" not in verdict.split(".")[1]
    assert "rkv, 4.5 %" in verdict
    assert "random, 17.0 %) differ by more" in verdict


def test_the_eviction_verdict_when_nothing_works(make_results: MakeResults) -> None:
    found = {"rkv": [0.04, 0.05], "random": [0.05, 0.04], "uniform": [0.04, 0.04]}
    verdict = eviction_verdict(summarize(EVICTION.arms, make_results(found)))
    assert "Of the 3 rules that have to choose, none does better than a guess (4.2 %)" in verdict
    assert "do not differ by more than their intervals" in verdict


@pytest.mark.parametrize(
    ("found", "met"),
    [
        ({"positions": [1.0, 0.96], "knockout": [0.94, 0.92]}, True),
        ({"positions": [1.0, 1.0], "knockout": [0.94, 0.95]}, False),
        ({"positions": [0.9], "knockout": [1.0]}, True),
        ({"positions": [1.0]}, None),
        ({"knockout": [1.0]}, None),
    ],
)
def test_knockout_is_held_against_the_oracle(
    make_results: MakeResults, found: Good, met: bool | None
) -> None:
    (expectation,) = eviction_expectations(summarize(EVICTION.arms, make_results(found)))
    assert expectation.met is met


def test_the_teachers_cost_stands_beside_the_students(make_results: MakeResults) -> None:
    summaries = summarize(EVICTION.arms, make_results({"rkv": [0.04]}))
    teacher = {"accuracy": 1.0, "num_items": 200, "forward_passes": 18.0}
    assert reference_sentence(teacher, summaries) == (
        "The teacher, writing all of it, is right 100.0 % of the time in 18 forward passes per "
        "answer; the students take 3."
    )
