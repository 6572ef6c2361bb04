"""Steps to a target, with runs that never reach it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from kava.statistics.steps import Reached, compare_steps, log_rank_scores, steps_to


def arm(*steps: int) -> list[Reached]:
    """Runs that reached it at these steps; a negative one is censored there."""
    return [Reached(abs(step), step > 0) for step in steps]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.1, 0.9, 0.2], Reached(200, True)),  # the first time counts
        ([0.9, 0.9, 0.9], Reached(100, True)),
        ([0.1, 0.2, 0.8], Reached(300, True)),
        ([0.1, 0.2, 0.799], Reached(300, False)),
    ],
)
def test_the_first_evaluation_at_the_target_counts(values: list[float], found: Reached) -> None:
    assert steps_to([100, 200, 300], values, 0.8) == found


def test_a_run_without_evaluations_is_refused() -> None:
    with pytest.raises(ValueError, match="0 values at 0 steps"):
        steps_to([], [], 0.5)
    with pytest.raises(ValueError, match="an arm without runs"):
        compare_steps([], arm(1))


def expected_less_seen(own: list[Reached], other: list[Reached]) -> float:
    """The log-rank numerator, step by step."""
    total = 0.0
    for step in sorted({run.step for run in [*own, *other] if run.reached}):
        at_risk = [sum(run.step >= step for run in one) for one in (own, other)]
        reached = [sum(run.reached and run.step == step for run in one) for one in (own, other)]
        total += reached[0] - sum(reached) * at_risk[0] / sum(at_risk)
    return total


CASES = {
    "all reach it": (arm(100, 200, 300, 400), arm(150, 250, 400, 400)),
    "one is censored": (arm(100, 200, 300, -500), arm(300, 400, 400, 500)),
    "one arm is censored": (arm(100, 200, 300, 300), arm(-500, -500, -500, -500)),
    "censored before others": (arm(-100, 200, 300, 400), arm(300, -300, 500, 600)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_p_is_that_of_all_divisions_by_hand(case: str) -> None:
    own, other = CASES[case]
    runs = [*own, *other]
    seen = abs(expected_less_seen(own, other))
    far = 0
    divisions = list(combinations(range(8), 4))
    for chosen in divisions:
        first = [runs[i] for i in chosen]
        second = [runs[i] for i in range(8) if i not in chosen]
        far += abs(expected_less_seen(first, second)) >= seen - 1e-9
    assert compare_steps(own, other).p == pytest.approx(far / len(divisions))
    assert log_rank_scores(runs)[:4].sum() == pytest.approx(expected_less_seen(own, other))
    assert log_rank_scores(runs).sum() == pytest.approx(0, abs=1e-9)


def test_of_many_runs_p_is_near_scipys_log_rank_test() -> None:
    rng = np.random.default_rng(0)
    steps = rng.exponential([[300], [450]], (2, 40)).round() + 1
    own, other = ([Reached(int(min(s, 600)), bool(s <= 600)) for s in one] for one in steps)
    data = [
        stats.CensoredData(
            uncensored=[run.step for run in one if run.reached],
            right=[run.step for run in one if not run.reached],
        )
        for one in (own, other)
    ]
    assert compare_steps(own, other).p == pytest.approx(stats.logrank(*data).pvalue, abs=0.01)


def test_runs_that_all_never_reach_it_are_alike() -> None:
    found = compare_steps(arm(-500, -500, -500), arm(-500, -500, -500))
    assert (found.p, found.difference) == (1.0, 0.0)


def test_censored_runs_count_to_their_end_in_the_mean() -> None:
    found = compare_steps(arm(100, -500), arm(200, 300))
    assert (found.mean_treatment, found.mean_baseline) == (300, 250)
