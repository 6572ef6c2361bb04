"""Two models on the same items, against scipy, by hand, and on published answers."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from kava.statistics import Items, bca_interval, compare_items, holm


def items(correct: np.ndarray) -> Items:
    return Items(tuple(map(str, range(len(correct)))), np.asarray(correct, bool))


def counted(both: int, only_a: int, only_b: int, neither: int) -> tuple[Items, Items]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return items(a), items(b)


def mcnemar_by_hand(only_a: int, only_b: int) -> float:
    """The probability of a split at least as uneven, if either wins a discordant item alike."""
    total, least = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(total, k) for k in range(least + 1)) / 2**total
    return min(1.0, 2 * tail)


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (0, 5), (3, 3), (4, 3), (10, 2), (209, 152), (0, 40)]
)
def test_p_is_the_binomial_sum(only_a: int, only_b: int) -> None:
    found = compare_items(*counted(20, only_a, only_b, 11), num_resamples=100)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(mcnemar_by_hand(only_a, only_b), rel=1e-9)
    if only_a + only_b:
        binomial = stats.binomtest(only_a, only_a + only_b).pvalue
        assert found.p == pytest.approx(binomial, rel=1e-9)


def test_the_figures_agree_with_scipy_and_statsmodels() -> None:
    a, b = counted(40, 25, 10, 25)
    found = compare_items(a, b, seed=3)
    difference = a.correct.astype(float) - b.correct
    assert (found.num_items, found.correct_a, found.correct_b) == (100, 65, 50)
    assert found.difference == pytest.approx(0.15)
    assert found.interval_a == pytest.approx(proportion_confint(65, 100, method="wilson"))
    assert found.interval_b == pytest.approx(proportion_confint(50, 100, method="wilson"))
    expected = stats.bootstrap(
        (difference,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected[0], expected[1]))
    # d_z and the paired t are one figure
    t = stats.ttest_1samp(difference, 0).statistic
    assert found.d_z == pytest.approx(t / 100**0.5)


def test_the_interval_is_seeded_and_follows_the_confidence() -> None:
    a, b = counted(40, 25, 10, 25)
    assert compare_items(a, b, seed=1) == compare_items(a, b, seed=1)
    narrow = compare_items(a, b, confidence=0.5)
    wide = compare_items(a, b, confidence=0.99)
    assert wide.low < narrow.low < 0.15 < narrow.high < wide.high
    assert wide.interval_a.low < narrow.interval_a.low


@pytest.mark.parametrize("counts", [(5, 0, 0, 5), (0, 8, 0, 0), (0, 0, 8, 0), (1, 0, 0, 0)])
def test_without_spread_there_is_no_interval_and_no_d_z(counts: tuple[int, int, int, int]) -> None:
    found = compare_items(*counted(*counts))
    assert (found.low, found.high, found.d_z) == (None, None, None)


def test_the_bootstrap_names_what_it_cannot_take() -> None:
    with pytest.raises(ValueError, match="num_resamples=10 must be from 100"):
        bca_interval([0.0, 1.0], num_resamples=10)
    with pytest.raises(ValueError, match="no list of values per item"):
        bca_interval([])
    with pytest.raises(ValueError, match="confidence=95"):
        bca_interval([0.0, 1.0], confidence=95)


def test_holm_is_statsmodels_and_the_steps_by_hand() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    order = np.argsort(p_values)
    expected, highest = [0.0] * 5, 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (5 - rank) * p_values[index]))
        expected[index] = highest
    assert holm(p_values) == pytest.approx(expected)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    with pytest.raises(ValueError, match="p=nan is no probability"):
        holm([0.1, float("nan")])


@pytest.mark.shared
def test_the_published_solutions_of_gsm8k(shared: Path) -> None:
    """Four models in the file's order: 6B and 175B, each finetuned and with a verifier."""
    path = shared / "data/gsm8k/example_model_solutions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"]
    assert [name for name in rows[0] if isinstance(rows[0][name], dict)] == names
    first, second, third, fourth = (
        items(np.array([row[name]["is_correct"] for row in rows])) for name in names
    )
    assert len(rows) == 1319
    assert [one.num_correct for one in (first, second, third, fourth)] == [286, 515, 458, 742]
    discordant = {
        name: (found.only_a, found.only_b, found.p)
        for name, found in (
            ("1-2", compare_items(first, second)),
            ("3-4", compare_items(third, fourth)),
            ("2-3", compare_items(second, third)),
        )
    }
    assert discordant["1-2"][:2] == (64, 293)
    assert discordant["3-4"][:2] == (76, 360)
    assert discordant["2-3"][:2] == (209, 152)
    assert round(discordant["2-3"][2], 5) == 0.00315
    for only_a, only_b, p in discordant.values():
        assert p == pytest.approx(mcnemar_by_hand(only_a, only_b), rel=1e-9)
