"""The whole way from simulated items to a verdict: how often it is wrong, and how often right."""

from __future__ import annotations

import gc
from collections import Counter
from functools import cache

import numpy as np
import pytest

from kava.statistics import ArmComparison, compare_arms, holm, power_before, verdict
from kava.statistics.simulate import SCENARIOS, Scenario, simulate_arms

STUDIES = 200


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """statsmodels' multipletests collects all garbage at each call, half a second with torch."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@cache
def compared(scenario: Scenario, gain: float = 0.0) -> list[ArmComparison]:
    rng = np.random.default_rng(0)
    return [
        compare_arms(*simulate_arms(rng, scenario, num_items=250, gain=gain), num_resamples=0)
        for _ in range(STUDIES)
    ]


def judged(found: list[ArmComparison]) -> Counter[str]:
    return Counter(
        verdict(one, p_adjusted=holm([one.p])[0], minimum_effect=0.05, alpha=0.05).kind
        for one in found
    )


@pytest.mark.parametrize(
    "name", ["typical", "seeds nearly alike", "seeds far apart", "all or chance"]
)
def test_identical_arms_differ_in_one_study_of_twenty_at_most(name: str) -> None:
    found = compared(SCENARIOS[name])
    share = np.mean([one.p < 0.05 for one in found])
    assert 0.01 <= share <= 0.08  # of 200 studies
    kinds = judged(found)
    assert (kinds["better"] + kinds["worse"]) / STUDIES == share


def test_items_as_clusters_take_the_luck_of_runs_for_merit() -> None:
    """Why it is not the test that decides."""
    assert np.mean([one.item_p < 0.05 for one in compared(SCENARIOS["typical"])]) > 0.3


def test_holm_keeps_three_identical_arms_from_a_win() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(STUDIES):
        baseline, first = simulate_arms(rng, SCENARIOS["typical"], num_items=250)
        found = [
            compare_arms(first, baseline, num_resamples=0),
            compare_arms(first[::-1], baseline, num_resamples=0),
            compare_arms(np.roll(first, 1, 0), baseline, num_resamples=0),
        ]
        adjusted = holm([one.p for one in found])
        wrong += any(
            verdict(one, p_adjusted=p, minimum_effect=0.05).kind in ("better", "worse")
            for one, p in zip(found, adjusted)
        )
    assert wrong / STUDIES <= 0.08


def test_a_gain_is_found_as_often_as_foretold() -> None:
    scenario = Scenario(base=0.0, run_std=0.3, item_std=0.0, own_std=0.0)
    found = compared(scenario, gain=0.6)
    rng = np.random.default_rng(9)
    runs = 1 / (1 + np.exp(-rng.normal([[0.0], [0.6]], 0.3, (2, 100_000))))
    foretold = power_before(
        effect=float(runs[1].mean() - runs[0].mean()),
        num_seeds=5,
        num_items=250,
        seed_std=float(runs.std(1).mean()),
        accuracy=float(runs[0].mean()),
    )
    share = np.mean([one.p < 0.05 for one in found])
    assert 0.5 < foretold < 0.95
    assert share == pytest.approx(foretold, abs=0.09)  # three standard errors of 200 studies
    assert judged(found)["worse"] == 0
