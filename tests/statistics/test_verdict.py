"""What a comparison allows to be said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from claims import check_words, excludes
from kava.statistics import ArmComparison, compare_arms, unseen_share, verdict
from kava.statistics.verdict import SEEDS_TO_RULE_OUT

BASE = compare_arms(np.ones((5, 100)), np.ones((5, 100)))


def comparison(difference: float, low: float, high: float, p: float) -> ArmComparison:
    return replace(BASE, difference=difference, low=low, high=high, p=p, minimum_detectable=0.123)


@pytest.mark.parametrize(
    ("figures", "p_adjusted", "kind", "clears", "words"),
    [
        ((0.2, 0.1, 0.3, 0.001), 0.002, "better", True, "Better by 20.0 points"),
        ((0.2, 0.1, 0.3, 0.001), 0.002, "better", True, "whole interval lies above the least gain"),
        ((0.04, 0.01, 0.07, 0.001), 0.002, "better", False, "does not rule out a gain smaller"),
        ((-0.2, -0.3, -0.1, 0.001), 0.002, "worse", True, "Worse by 20.0 points"),
        ((-0.04, -0.07, -0.01, 0.001), 0.002, "worse", False, "not rule out a loss smaller"),
        ((0.01, -0.02, 0.04, 0.5), 0.5, "no better", True, "rules out a gain of 5.0 points"),
        ((-0.2, -0.5, 0.04, 0.08), 0.08, "no better", True, "No better"),
        (
            (0.01, -0.2, 0.2, 0.9),
            0.9,
            "undecided",
            False,
            "difference of 12.3 points would have been found four times in five",
        ),
        # its own p is below alpha, the adjusted one is not: no win
        ((0.2, 0.01, 0.39, 0.03), 0.06, "undecided", False, "It may be chance"),
        ((0.2, 0.01, 0.39, 0.05), 0.05, "undecided", False, "It may be chance"),
    ],
)
def test_the_kinds(
    figures: tuple[float, float, float, float],
    p_adjusted: float,
    kind: str,
    clears: bool,
    words: str,
) -> None:
    found = verdict(comparison(*figures), p_adjusted=p_adjusted, minimum_effect=0.05, alpha=0.05)
    assert (found.kind, found.clears_minimum) == (kind, clears)
    assert words in found.sentence


def test_the_sentence_holds_the_interval_and_the_adjusted_p() -> None:
    found = verdict(comparison(0.2, -0.1, 0.35, 0.02), p_adjusted=0.034, minimum_effect=0.05)
    assert "(95% interval −10.0 to +35.0, p = 0.034)" in found.sentence
    found = verdict(comparison(0.2, 0.1, 0.35, 1e-9), p_adjusted=2e-9, minimum_effect=0.05)
    assert "p < 0.0001" in found.sentence


def test_without_a_detectable_effect_none_is_named() -> None:
    one = replace(comparison(0.0, -0.2, 0.2, 1.0), minimum_detectable=None)
    sentence = verdict(one, p_adjusted=1.0, minimum_effect=0.05).sentence
    assert "None" not in sentence
    assert "four times in five" not in sentence


def test_an_effect_beyond_a_hundred_points_is_none_that_can_be_found() -> None:
    one = replace(comparison(0.0, -0.6, 0.6, 0.9), minimum_detectable=1.11)
    sentence = verdict(one, p_adjusted=0.9, minimum_effect=0.05).sentence
    assert "no difference four times in five, however large" in sentence
    assert "111" not in sentence


@pytest.mark.parametrize("num_seeds", range(2, 21))
@pytest.mark.parametrize("test", ["crossed", "seeds", "wilcoxon", "items"])
@pytest.mark.parametrize(
    "figures",
    [
        (0.2, 0.1, 0.3, 0.001),
        (0.04, 0.01, 0.07, 0.001),
        (-0.2, -0.3, -0.1, 0.001),
        (0.003, -0.01, 0.016, 0.6),
        (0.0, -0.004, 0.004, 1.0),
        (-0.3, -0.6, 0.01, 0.06),
        (0.1, -0.4, 0.6, 0.5),
        (0.1, float("nan"), float("nan"), 1.0),
        (-1.0, -1.0, -0.996, 0.008),
    ],
)
@pytest.mark.parametrize("detectable", [None, 0.123, 1.5, float("inf")])
def test_a_verdict_says_no_more_than_its_figures(
    num_seeds: int, test: str, figures: tuple[float, ...], detectable: float | None
) -> None:
    one = replace(
        comparison(*figures), num_seeds=num_seeds, test=test, minimum_detectable=detectable
    )
    found = verdict(one, p_adjusted=one.p, minimum_effect=0.05)
    check_words(found.sentence)
    assert ("Better by" in found.sentence) == (found.kind == "better")
    assert (found.kind == "better") == (one.p < 0.05 and one.difference > 0)
    assert (found.kind == "worse") == (one.p < 0.05 and one.difference < 0)
    may_exclude = test == "items" or num_seeds >= SEEDS_TO_RULE_OUT
    within = one.p >= 0.05 and one.high < 0.05
    assert (found.kind == "no better") == (within and may_exclude)
    assert excludes(found.sentence) == (found.kind == "no better")
    if within and not may_exclude:
        assert f"{num_seeds} seeds are too few to exclude one" in found.sentence
        assert f"{100 * unseen_share(num_seeds):.0f} %" in found.sentence
    assert found.clears_minimum <= (found.kind != "undecided")


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5, 10, 20])
def test_what_none_of_the_runs_showed_may_still_be_of_this_share(num_seeds: int) -> None:
    exact = binomtest(0, num_seeds, alternative="less").proportion_ci(0.95, method="exact")
    assert unseen_share(num_seeds) == pytest.approx(exact.high)


def test_a_share_of_no_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="num_seeds=0 must be at least 1"):
        unseen_share(0)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("share", [0.0, 0.04, 0.3, 1.0])
def test_arms_that_are_alike_in_every_answer_are_never_a_gain(num_seeds: int, share: float) -> None:
    correct = np.tile(np.arange(400) < 400 * share, (num_seeds, 1))
    same = compare_arms(correct, correct, num_resamples=0)
    found = verdict(same, p_adjusted=same.p, minimum_effect=0.05)
    check_words(found.sentence)
    excluded = num_seeds >= SEEDS_TO_RULE_OUT and share >= 0.1  # where none learned, one may yet
    assert found.kind == ("no better" if excluded else "undecided")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"p_adjusted": 0.01}, r"p_adjusted=0.01 must lie between the comparison's p=0.02 and 1"),
        ({"p_adjusted": 1.5}, "p_adjusted=1.5"),
        ({"minimum_effect": 5}, "minimum_effect=5 must lie between 0 and 1"),
        ({"alpha": 0}, "alpha=0 must lie between 0 and 1"),
    ],
)
def test_values_out_of_reach_are_named(changes: dict[str, float], complaint: str) -> None:
    values = {"p_adjusted": 0.02, "minimum_effect": 0.05, "alpha": 0.05, **changes}
    with pytest.raises(ValueError, match=complaint):
        verdict(comparison(0.2, 0.1, 0.3, 0.02), **values)
