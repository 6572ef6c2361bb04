"""What the numbers of the heterogeneous studies amount to, on made-up runs."""

from typing import Any

import pytest

from demo.conftest import MakeResults
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.hetero_verdicts import (
    hetero_expectations,
    hetero_verdict,
    joint_verdict,
    rank_verdict,
)
from kava.demo.results import summarize

Accuracies = dict[str, list[float]]

GOOD: Accuracies = {
    "ce": [0.04, 0.05, 0.03],
    "wrong_sample": [0.05, 0.04, 0.04],
    "per_head": [0.96, 1.0, 0.97],
    "rank_8": [1.0, 0.99, 1.0],
    "shared": [0.4, 0.2, 0.6],
    "joint": [0.03, 0.04, 0.05],
}


def maps(make_results: MakeResults, change: Accuracies) -> Any:
    measured = {"per_head": {"aligner_parameters": 8496}, "shared": {"aligner_parameters": 2352}}
    return summarize(HETERO.arms, make_results(GOOD | change, measured=measured))


def test_maps_that_do_it_are_named_with_their_size(make_results: MakeResults) -> None:
    verdict = hetero_verdict(maps(make_results, {}))
    assert (
        "right at least 95 % of the time with every seed are per_head (8,496 parameters) 96.0 %, "
        "100.0 %, 97.0 %; rank_8 (0 parameters) 100.0 %, 99.0 %, 100.0 %." in verdict
    )
    assert "The controls stay within 10 points of a guess (4.2 %): ce 4.0 %" in verdict
    assert "Under the same budget: shared (2,352 parameters) 40.0 %, 20.0 %, 60.0 %;" in verdict
    assert "Not right" not in verdict


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per_head": [0.96, 0.94, 1.0]}, "seed is rank_8 (0"),
        ({"per_head": [0.96, 0.94, 1.0]}, "Not right at least 95 % of the time with every seed is"),
        ({"per_head": [0.5], "rank_8": [0.9]}, "with a single seed are per_head (8,496"),
        ({"ce": [0.04, 0.2, 0.04]}, "Of the controls, ce 20.0 % is not within 10 points"),
        ({"ce": [0.2], "wrong_sample": [0.9]}, "ce 20.0 %; wrong_sample 90.0 % are not within"),
    ],
)  # fmt: skip
def test_maps_that_do_not_are_not_said_to(
    make_results: MakeResults, change: Accuracies, words: str
) -> None:
    verdict = hetero_verdict(maps(make_results, change))
    assert words in verdict
    # a control that learns leaves it open what taught the others
    assert ("brings the teacher's cache" in verdict) == (not {"rank_8", "ce"} & set(change))
    assert ("The controls stay" in verdict) == ("ce" not in change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [True, True]),
        ({"per_head": [0.1, 0.1, 0.1]}, [True, True]),
        ({"per_head": [0.1], "rank_8": [1.0, 0.949, 1.0]}, [False, True]),
        ({"wrong_sample": [0.04, 0.15, 0.04]}, [True, False]),
    ],
)
def test_what_is_expected_of_the_pair(
    make_results: MakeResults, change: Accuracies, expected: list[bool]
) -> None:
    assert [e.met for e in hetero_expectations(maps(make_results, change))] == expected


def test_arms_that_were_not_run_meet_nothing(make_results: MakeResults) -> None:
    summaries = summarize(HETERO.arms, make_results({"flat": [1.0]}))
    assert [str(e).split(":")[0] for e in hetero_expectations(summaries)] == ["not run", "not run"]
    assert hetero_verdict(summaries).startswith("Under the same budget: flat")


def ranks(make_results: MakeResults, accuracies: Accuracies) -> Any:
    explained = {"rank_1": 0.31, "rank_2": 0.42, "rank_4": 0.5, "rank_8": 0.56, "full": 0.57}
    measured = {name: {"r_squared": value} for name, value in explained.items()}
    return summarize(RANK.arms, make_results(accuracies, measured=measured))


def test_where_more_terms_stop_helping(make_results: MakeResults) -> None:
    found = {"rank_1": [0.1], "rank_2": [0.5], "rank_4": [0.985], "rank_8": [1.0], "full": [0.99]}
    verdict = rank_verdict(ranks(make_results, found))
    assert "From 4 terms on: rank_4 (0 parameters) 98.5 % and all beyond come within" in verdict
    assert "rank_2 (0 parameters) 50.0 % does not" in verdict
    assert "1, 2, 4, 8 terms explain 0.31, 0.42, 0.50, 0.56 (mean R²), the full map 0.57" in verdict


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"rank_1": [0.99], "rank_4": [1.0], "full": [0.99]}, "From one term on: rank_1"),
        ({"rank_2": [0.99], "rank_4": [1.0], "full": [0.99]}, "From 2 terms on: rank_2"),
        (
            {"rank_1": [0.1], "rank_4": [0.5], "full": [0.99]},
            "With 4 terms, the most, a map does not come within its interval",
        ),
        # a rank that does it by luck, below one that does not, is not where structure stops
        (
            {"rank_1": [0.1], "rank_2": [0.99], "rank_4": [0.5], "rank_8": [1.0], "full": [0.99]},
            "From 8 terms on: rank_8 (0 parameters) 100.0 % comes within its interval",
        ),
        # nor is the luck of a lower one denied where the highest does not
        (
            {"rank_1": [0.1], "rank_2": [0.99], "rank_4": [0.5], "full": [0.99]},
            "of fewer, rank_2 (0 parameters) 99.0 % does",
        ),
        ({"rank_1": [0.1], "rank_2": [0.2], "full": [0.99]}, "nor do fewer"),
        ({"rank_1": [0.04], "full": [0.04]}, "so that nothing can be said of the number of terms"),
        ({"rank_1": [0.1]}, "Too few arms were run to compare: rank_1"),
        ({"full": [0.1]}, "Too few arms were run to compare: full"),
    ],
)
def test_the_rank_verdict_follows_the_numbers(
    make_results: MakeResults, found: Accuracies, words: str
) -> None:
    assert words in rank_verdict(ranks(make_results, found))


LOSSES = {
    "joint": 0.006, "joint_wrong": 0.005, "calibrated_joint": 0.2, "calibrated": 0.14,
    "back_joint": 0.13, "back_joint_wrong": 0.3, "back_calibrated": 0.12,
}  # fmt: skip
SEEN: Accuracies = {
    "joint": [0.034, 0.04],
    "joint_wrong": [0.038, 0.04],
    "calibrated_joint": [0.04, 0.05],
    "calibrated": [1.0, 1.0],
    "back_joint": [0.953, 0.875],
    "back_joint_wrong": [0.037, 0.04],
    "back_calibrated": [1.0, 0.99],
}


def joint(make_results: MakeResults, losses: dict[str, float | None], seen: Accuracies) -> str:
    measured = {name: {"kv": loss} for name, loss in losses.items()}
    return joint_verdict(summarize(JOINT.arms, make_results(seen, measured=measured)))


def test_a_low_loss_at_chance_is_called_a_collapse(make_results: MakeResults) -> None:
    forward, back = joint(make_results, LOSSES, SEEN).split("Student mapped: ")
    assert "joint collapses in 2 of 2 runs (joint 3.4 %, 4.0 %, KV loss 0.006)" in forward
    assert "calibrated_joint stays at chance in 2 of 2 runs" in forward  # its loss is not low
    assert "its loss ends at 0.005, not apart from 0.006" in forward
    assert "back_joint does not collapse (back_joint 95.3 %, 87.5 %, KV loss 0.13)" in back
    assert "its loss ends at 0.3, apart from 0.13" in back
    assert "fitted and frozen (back_calibrated), back_calibrated 100.0 %" in back


def test_each_run_collapses_by_itself(make_results: MakeResults) -> None:
    seen = SEEN | {"joint": [0.034, 0.9]}
    assert "joint collapses in 1 of 2 runs" in joint(make_results, LOSSES, seen)


def test_without_the_frozen_map_nothing_is_called_collapsed(make_results: MakeResults) -> None:
    only = {"joint": SEEN["joint"]}
    assert joint(make_results, LOSSES, only) == (
        "Teacher mapped: joint stays at chance in 2 of 2 runs (joint 3.4 %, 4.0 %, KV loss 0.006)."
    )


def test_runs_without_a_loss_are_said_to_have_none(make_results: MakeResults) -> None:
    losses: dict[str, float | None] = dict.fromkeys(LOSSES)
    verdict = joint(make_results, losses, SEEN)
    assert "joint_wrong has no KV loss to compare" in verdict
    assert "collapses" not in verdict
