"""Runs that learn or do not: the exact test of shares, the two kinds, and intervals that cover."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from kava.statistics import GRADED, Levels, accuracy_interval, compare_arms, levels_of, verdict
from kava.statistics.crossed import Difference
from kava.statistics.learned import learned_interval
from kava.statistics.shares import share_interval, share_p, share_power

CHANCE = 1 / 24


def all_tables(n: int) -> Iterator[tuple[int, int]]:
    yield from product(range(n + 1), repeat=2)


def pooled_z(a: int, b: int, n: int) -> float:
    share = (a + b) / (2 * n)
    return 0.0 if share in (0, 1) else abs(a - b) / n / (2 * share * (1 - share) / n) ** 0.5


def chance_of(a: int, b: int, n: int, p: float, q: float) -> float:
    one, other = (comb(n, k) * s**k * (1 - s) ** (n - k) for k, s in ((a, p), (b, q)))
    return one * other


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_exact_p_is_that_of_all_tables_counted_by_hand(n: int) -> None:
    for a, b in all_tables(n):
        z = pooled_z(a, b, n)
        far = [one for one in all_tables(n) if pooled_z(*one, n) >= z - 1e-9]
        worst = max(sum(chance_of(*one, n, p, p) for one in far) for p in np.linspace(0, 1, 101))
        assert share_p(a, b, n) == pytest.approx(min(worst, 1.0), abs=1e-9)


@pytest.mark.parametrize(("a", "b", "n"), [(5, 0, 5), (4, 0, 5), (3, 0, 3), (7, 2, 10)])
def test_the_exact_p_is_scipys_barnard(a: int, b: int, n: int) -> None:
    expected = stats.barnard_exact([[a, b], [n - a, n - b]], pooled=True).pvalue
    assert share_p(a, b, n) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_shares_covers_whatever_the_true_shares(n: int) -> None:
    held = {table: share_interval(*table, n) for table in all_tables(n)}
    for p, q in product((0.0, 0.07, 0.2, 0.5, 0.8, 0.96, 1.0), repeat=2):
        covered = sum(
            chance_of(*table, n, p, q)
            for table, (low, high) in held.items()
            if low - 0.005 <= p - q <= high + 0.005  # a step of the grid
        )
        assert covered >= 0.95 - 1e-9


def test_the_interval_leaves_out_0_where_p_is_below_its_level() -> None:
    for table in all_tables(5):
        low, high = share_interval(*table, 5)
        assert (low > 0 or high < 0) == (share_p(*table, 5) < 0.05)


def test_beyond_thirty_runs_the_score_is_close_to_the_exact_test() -> None:
    near, exact = share_interval(20, 10, 31), share_interval(20, 10, 30)
    assert near == pytest.approx(exact, abs=0.03)
    with pytest.raises(ValueError, match="31 runs are more than the 30"):
        share_power(0.5, 0.5, 31)
    with pytest.raises(ValueError, match="6 of 5 runs is no share"):
        share_p(6, 0, 5)


def test_the_power_of_the_exact_test_is_its_rejections_counted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(5, [0.9, 0.1], (4000, 2))
    found = np.mean([share_p(int(a), int(b), 5) < 0.05 for a, b in counts])
    assert share_power(0.9, 0.1, 5) == pytest.approx(found, abs=0.02)
    assert share_power(0.5, 0.5, 5) <= 0.05


def test_the_share_of_one_arm_has_clopper_and_pearsons_interval() -> None:
    for count in range(6):
        expected = stats.binomtest(count, 5).proportion_ci(method="exact")
        assert learned_interval(count, 5) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("accuracies", "declared", "expected"),
    [
        ([1.0, 1.0, 0.04, 0.06], None, Levels(0.52, 0.05, 1.0)),
        ([0.7, 0.75, 0.69], None, GRADED),
        ([0.3, 0.79], None, GRADED),  # less than half of the scale
        ([0.04, 0.05], None, Levels(0.5, 0.045, 1.0)),  # nothing learned: what it would be is open
        ([1.0, 1.0], 0.5, Levels(0.5, 0.0, 1.0)),
        ([0.4, 0.6], 0.5, Levels(0.5, 0.4, 0.6)),
        ([0.5, 0.2], 0.5, Levels(0.5, 0.2, 0.5)),  # at the threshold it has learned
        ([1.0, 0.0], 0.0, GRADED),
    ],
)
def test_the_kinds_of_runs(
    accuracies: list[float], declared: float | None, expected: Levels
) -> None:
    assert levels_of(accuracies, declared) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("accuracies", "declared", "complaint"),
    [([], None, "at least one run"), ([1.2], None, "from 0 to 1"), ([0.5], 1.0, "in .0, 1.")],
)
def test_kinds_that_cannot_be_are_named(
    accuracies: list[float], declared: float | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        levels_of(accuracies, declared)


def runs(learned: list[int], items: int = 400) -> np.ndarray:
    """[S, N] runs at 100 % or at chance."""
    rng = np.random.default_rng(1)
    return np.array([np.ones(items) if one else rng.random(items) < CHANCE for one in learned])


def test_four_of_five_against_none_has_the_exact_p_and_no_smaller_one() -> None:
    found = compare_arms(runs([1, 1, 0, 1, 1]), runs([0] * 5), num_resamples=0)
    assert found.learned is not None
    assert (found.learned.treatment, found.learned.baseline) == (4, 0)
    assert found.p == found.learned.p == pytest.approx(0.0215, abs=1e-4)
    assert found.learned.mcnemar_p == 0.125
    assert 0.05 < found.low < 0.2
    graded = compare_arms(runs([1, 1, 0, 1, 1]), runs([0] * 5), levels=GRADED, num_resamples=0)
    assert graded.learned is None
    assert graded.p < found.p


def test_a_difference_within_a_kind_is_found_beside_the_shares() -> None:
    """Both arms learned in each run, so that p is that of the interval and not of the shares."""
    rng = np.random.default_rng(0)
    good, poor = rng.random((20, 400)) < 0.95, rng.random((20, 400)) < 0.6
    found = compare_arms(good, poor, levels=Levels(0.5, 0.04, 0.75), num_resamples=0)
    assert found.learned is not None
    assert (found.learned.p, found.learned.treatment) == (pytest.approx(1.0, abs=1e-6), 20)
    assert found.low > 0
    assert found.p < 0.05


@pytest.mark.parametrize("learned", [[1] * 5, [0] * 5, [1, 1, 0, 1, 1]])
def test_p_is_the_level_at_which_the_interval_reaches_0(learned: list[int]) -> None:
    arms = runs(learned), runs([0, 1, 0, 0, 0])
    found = compare_arms(*arms, num_resamples=0)
    assert found.learned is not None
    if found.p in (1.0, found.learned.p):
        return
    ends = [
        compare_arms(*arms, confidence=1 - found.p - shift, num_resamples=0)
        for shift in (-1e-3, 1e-3)
    ]
    assert ends[1].low > 0 or ends[1].high < 0
    assert ends[0].low <= 0 <= ends[0].high


def covered(p: float, q: float, method: str, num_seeds: int = 5, studies: int = 300) -> float:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(studies):
        kinds = rng.random((2, num_seeds)) < [[p], [q]]
        a, b = (
            np.where(one[:, None], True, rng.random((num_seeds, 100)) < CHANCE) for one in kinds
        )
        levels = levels_of([*a.mean(1), *b.mean(1), CHANCE]) if method == "crossed" else GRADED
        low, high = Difference(a.astype(float), b.astype(float), levels).interval(0.95)
        held += low <= (p - q) * (1 - CHANCE) <= high
    return held / studies


@pytest.mark.parametrize(("p", "q"), [(0.8, 0.0), (0.8, 0.2), (0.2, 0.0), (0.8, 1.0)])
def test_the_interval_covers_where_a_t_over_runs_does_not(p: float, q: float) -> None:
    assert covered(p, q, "crossed") >= 0.93
    assert covered(p, q, "graded") < 0.93


def test_an_arms_own_interval_holds_what_none_of_its_runs_showed() -> None:
    low, high = accuracy_interval(runs([0] * 5))
    assert low < 0.05 < 0.45 < high
    low, high = accuracy_interval(runs([1] * 5), levels=Levels(0.5, CHANCE, 1.0))
    assert low < 0.55


@pytest.mark.parametrize(("num_seeds", "comparisons"), [(3, 1), (3, 7), (5, 4)])
def test_a_verdict_says_where_no_outcome_could_have_been_clearer(
    num_seeds: int, comparisons: int
) -> None:
    found = compare_arms(runs([1] * num_seeds), runs([0] * num_seeds), num_resamples=0)
    said = verdict(found, p_adjusted=min(1.0, comparisons * found.p), minimum_effect=0.05)
    few = f"{num_seeds} seeds an arm are too few" in said.sentence
    assert few == (said.kind == "undecided") == (comparisons == 7)
    assert f"{num_seeds} of {num_seeds} runs learned, 0 of {num_seeds}" in said.sentence
