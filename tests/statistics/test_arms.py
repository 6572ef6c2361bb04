"""Two arms over seeds and items."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from kava.statistics import GRADED, TESTS, accuracy_interval, compare_arms
from kava.statistics.intervals import wilson
from kava.statistics.simulate import SCENARIOS, simulate_arms

Arms = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def arms() -> Arms:
    return simulate_arms(np.random.default_rng(3), SCENARIOS["typical"], num_items=80, gain=0.5)


def crossed_by_hand(treatment: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Variance of the difference, its degrees of freedom and its part from items, by loops."""
    S, N = treatment.shape
    d = [[float(treatment[s, i]) - float(baseline[s, i]) for i in range(N)] for s in range(S)]
    grand = sum(map(sum, d)) / (S * N)
    rows = [sum(row) / N for row in d]
    columns = [sum(d[s][i] for s in range(S)) / S for i in range(N)]
    rest = sum((d[s][i] - rows[s] - columns[i] + grand) ** 2 for s in range(S) for i in range(N))
    rest /= (S - 1) * (N - 1)
    items = S * sum((one - grand) ** 2 for one in columns) / (N - 1)
    part_items = max(0.0, items - rest) / (S * N)
    part_runs = bottom = 0.0
    for arm in (treatment, baseline):
        accuracies = [sum(map(float, run)) / N for run in arm]
        mean = sum(accuracies) / S
        part = sum((one - mean) ** 2 for one in accuracies) / (S - 1) / S
        part_runs += part
        bottom += part**2 / (S - 1)
    total = part_runs + part_items
    return total, total**2 / (bottom + part_items**2 / (N - 1)), part_items


def test_the_crossed_test_is_the_two_way_table_by_hand(arms: Arms) -> None:
    found = compare_arms(*arms)
    variance, degrees, _ = crossed_by_hand(*arms)
    t = found.difference / variance**0.5
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-9)
    reach = stats.t.ppf(0.975, degrees) * variance**0.5
    assert found.low == pytest.approx(found.difference - reach, rel=1e-9)
    assert found.high == pytest.approx(found.difference + reach, rel=1e-9)


def test_where_items_show_no_effect_the_crossed_test_is_welchs() -> None:
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(20):  # without true effects of items, about half of such tables show none
        treatment, baseline = rng.random((2, 5, 40)) < 0.7
        if crossed_by_hand(treatment, baseline)[2] == 0:
            welch = stats.ttest_ind(treatment.mean(1), baseline.mean(1), equal_var=False)
            found = compare_arms(treatment, baseline, num_resamples=100)
            assert found.p == pytest.approx(welch.pvalue)
            checked += 1
    assert checked > 3


def test_seeds_items_and_wilcoxon_agree_with_scipy(arms: Arms) -> None:
    treatment, baseline = arms
    difference = treatment.astype(float) - baseline
    found = {test: compare_arms(*arms, test=test) for test in TESTS}
    seeds = stats.ttest_rel(treatment.mean(1), baseline.mean(1))
    assert found["seeds"].p == pytest.approx(seeds.pvalue)
    assert (found["seeds"].low, found["seeds"].high) == pytest.approx(seeds.confidence_interval())
    items = stats.ttest_1samp(difference.mean(0), 0)
    assert found["items"].p == pytest.approx(items.pvalue)
    assert (found["items"].low, found["items"].high) == pytest.approx(items.confidence_interval())
    wilcoxon = stats.wilcoxon(difference.mean(1).round(12))
    assert found["wilcoxon"].p == pytest.approx(wilcoxon.pvalue)
    assert found["wilcoxon"].minimum_detectable is None
    for one in found.values():  # the rest is the same, whatever decides
        assert one.paired_t_p == pytest.approx(seeds.pvalue)
        assert one.wilcoxon_p == pytest.approx(wilcoxon.pvalue)
        assert one.item_p == pytest.approx(items.pvalue)
        assert (one.item_low, one.item_high) == pytest.approx(items.confidence_interval())


def test_the_figures_of_the_seeds(arms: Arms) -> None:
    treatment, baseline = arms
    found = compare_arms(*arms)
    differences = [float(t.mean() - b.mean()) for t, b in zip(treatment, baseline)]
    assert (found.num_seeds, found.num_items) == (5, 80)
    assert found.seed_differences == pytest.approx(differences)
    assert found.seed_std == pytest.approx(np.std(differences, ddof=1))
    assert found.d_z == pytest.approx(np.mean(differences) / np.std(differences, ddof=1))
    assert found.difference == pytest.approx(found.accuracy_treatment - found.accuracy_baseline)


def test_swapping_the_arms_turns_the_sign(arms: Arms) -> None:
    found, swapped = compare_arms(*arms), compare_arms(*reversed(arms))
    assert swapped.difference == -found.difference
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert swapped.p == pytest.approx(found.p)


def test_the_bootstrap_is_scipys_over_items_and_seeded(arms: Arms) -> None:
    difference_N = (arms[0].astype(float) - arms[1]).mean(0)
    found = compare_arms(*arms, seed=4)
    expected = stats.bootstrap(
        (difference_N,),
        np.mean,
        n_resamples=10_000,
        method="BCa",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((expected[0], expected[1]))
    without = compare_arms(*arms, num_resamples=0)
    assert (without.bootstrap_low, without.bootstrap_high) == (None, None)
    again, other = compare_arms(*arms, seed=4), compare_arms(*arms, seed=5)
    assert again == found
    assert other.bootstrap_low == pytest.approx(found.bootstrap_low, abs=0.01)


def test_identical_arms_give_p_1_and_an_interval_of_width(arms: Arms) -> None:
    same = arms[0]
    for test in TESTS:
        assert compare_arms(same, same, test=test).p == 1
    found = compare_arms(same, same)
    assert (found.difference, found.d_z) == (0, None)
    assert found.low < 0 < found.high
    assert (found.bootstrap_low, found.bootstrap_high) == (None, None)
    perfect = np.ones((5, 100), bool)
    found = compare_arms(perfect, perfect)
    assert (found.p, found.minimum_detectable) == (1, None)
    assert (found.low, found.high) == pytest.approx((-wilson(0, 100).high, wilson(0, 100).high))


def test_all_against_nothing_gives_the_exact_p_of_swapped_labels() -> None:
    right, wrong = np.ones((5, 100), bool), np.zeros((5, 100), bool)
    runs = [1.0] * 5 + [0.0] * 5
    as_far = [
        abs(sum(runs[i] for i in chosen) - 2.5) >= 2.5 for chosen in combinations(range(10), 5)
    ]
    assert compare_arms(right, wrong, levels=GRADED).p == pytest.approx(np.mean(as_far))
    assert compare_arms(right, wrong).p == pytest.approx(2 / 2**10, rel=1e-2)  # of two kinds
    signs = [abs(sum(signs)) == 5 for signs in product((-1, 1), repeat=5)]
    assert compare_arms(right, wrong, test="seeds").p == pytest.approx(np.mean(signs))
    assert compare_arms(right, wrong, test="items").p == pytest.approx(2.0**-99)
    assert compare_arms(right, wrong, test="wilcoxon").p == pytest.approx(np.mean(signs))
    found = compare_arms(right, wrong, levels=GRADED)
    assert (found.low, found.high) == pytest.approx((wilson(100, 100).low, 1.0))
    found = compare_arms(wrong, right, levels=GRADED)
    assert (found.low, found.high) == pytest.approx((-1.0, -wilson(100, 100).low))
    assert (found.d_z, found.minimum_detectable) == (None, None)


def test_runs_that_repeat_one_another_leave_the_spread_of_the_items() -> None:
    rng = np.random.default_rng(0)
    treatment = np.tile(rng.random(200) < 0.8, (5, 1))
    baseline = np.tile(rng.random(200) < 0.6, (5, 1))
    crossed = compare_arms(treatment, baseline)
    items = compare_arms(treatment, baseline, test="items")
    assert crossed.p == pytest.approx(items.p, rel=1e-6)
    assert compare_arms(treatment, baseline, test="seeds").p == pytest.approx(2 / 32)


def test_runs_of_one_accuracy_on_other_items_keep_the_spread_that_is_left() -> None:
    treatment = np.array([np.roll(np.arange(40) < 30, 10 * s) for s in range(4)])
    baseline = np.array([np.roll(np.arange(40) < 20, 10 * s) for s in range(4)])
    found = compare_arms(treatment, baseline)
    assert (found.seed_std, found.difference) == (0, 0.25)
    assert found.low < 0.25 < found.high
    assert 1e-12 < found.p < 0.05


@pytest.mark.parametrize(
    ("treatment", "baseline", "complaint"),
    [
        (np.ones((1, 9)), np.ones((1, 9)), "1 seed per arm.*train at least 2"),
        (np.ones((5, 9)), np.ones((5, 8)), r"\[5, 9\].*\[5, 8\].*same seeds and items"),
        (np.ones(9), np.ones(9), r"\[seeds, items\]"),
        (np.ones((5, 1)), np.ones((5, 1)), "1 item shows no spread"),
        (np.full((5, 9), 0.5), np.ones((5, 9)), "the treatment holds values other than"),
        (np.ones((5, 9)), np.full((5, 9), np.nan), "the baseline holds values other than"),
    ],
)
def test_arms_that_cannot_be_compared_are_named(
    treatment: np.ndarray, baseline: np.ndarray, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        compare_arms(treatment, baseline)


def test_an_unknown_test_or_confidence_is_named(arms: Arms) -> None:
    with pytest.raises(ValueError, match="test='t' is none of crossed, seeds, items, wilcoxon"):
        compare_arms(*arms, test="t")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="confidence=95 must lie between 0 and 1"):
        compare_arms(*arms, confidence=95)


def test_an_arms_interval_is_wider_the_more_its_runs_differ() -> None:
    rng = np.random.default_rng(0)
    steady = rng.random((5, 400)) < 0.7
    unsteady = rng.random((5, 400)) < np.array([0.5, 0.6, 0.7, 0.8, 0.9])[:, None]
    narrow, wide = accuracy_interval(steady), accuracy_interval(unsteady)
    assert narrow.high - narrow.low < 0.1 < wide.high - wide.low
    assert narrow.low < steady.mean() < narrow.high
    assert accuracy_interval(np.zeros((5, 100)), levels=GRADED) == wilson(0, 100)
