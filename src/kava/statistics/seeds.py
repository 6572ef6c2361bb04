"""Two arms of a study, each trained from several seeds and judged on the same items.

Shapes: S seeds, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from kava.statistics.bootstrap import bca_interval
from kava.statistics.crossed import NO_VARIANCE, Difference, Spread, interval_of_mean
from kava.statistics.intervals import Interval, wilson
from kava.statistics.learned import Learned, Levels, compare_learned, levels_of
from kava.statistics.power import detectable_effect

Test = Literal["crossed", "seeds", "items", "wilcoxon"]
TESTS: tuple[str, ...] = get_args(Test)
POWER = 0.8
MANY_DEGREES = 1e6  # of freedom: a t that is a normal


@dataclass(frozen=True, kw_only=True)
class ArmComparison:
    """A treatment against a baseline: the difference, its interval and what else there is to say.

    Accuracies and differences lie between 0 and 1 (−1 and 1), treatment − baseline.

    Attributes:
        test: the test that `p`, `low` and `high` belong to.
        num_seeds: runs per arm.
        num_items: items, the same in every run.
        confidence: of all intervals.
        accuracy_treatment: mean over runs and items.
        accuracy_baseline: likewise.
        interval_treatment: of the accuracy, for other runs and other items.
        interval_baseline: likewise.
        difference: of the accuracies.
        low: lower end of the test's interval.
        high: upper end.
        p: of the test, two-sided.
        item_low: lower end with items as clusters: for other items and these very runs.
        item_high: its upper end.
        item_p: p of the test with items as clusters.
        seed_differences: of the accuracies, for each seed.
        seed_std: standard deviation of these.
        d_z: Cohen's d_z over seeds, difference / seed_std; None where they do not differ.
        paired_t_p: paired t test over seeds.
        wilcoxon_p: Wilcoxon's signed-rank test over seeds, exact.
        bootstrap_low: lower end of the BCa interval over items; None where all items agree,
            and where it was left out.
        bootstrap_high: its upper end.
        minimum_detectable: the smallest true difference that the test would have found in 80 %
            of such studies; None for Wilcoxon's, and where no spread was seen.
        learned: how many runs of each arm learned, where runs either learn or do not; None where
            accuracies are a matter of degree.
    """

    test: str
    num_seeds: int
    num_items: int
    confidence: float
    accuracy_treatment: float
    accuracy_baseline: float
    interval_treatment: Interval
    interval_baseline: Interval
    difference: float
    low: float
    high: float
    p: float
    item_low: float
    item_high: float
    item_p: float
    seed_differences: tuple[float, ...]
    seed_std: float
    d_z: float | None
    paired_t_p: float
    wilcoxon_p: float
    bootstrap_low: float | None
    bootstrap_high: float | None
    minimum_detectable: float | None
    learned: Learned | None = None


class _Judged(NamedTuple):
    """A difference as a t test sees it."""

    low: float
    high: float
    p: float


def compare_arms(
    treatment: ArrayLike,
    baseline: ArrayLike,
    *,
    test: Test = "crossed",
    confidence: float = 0.95,
    levels: Levels | None = None,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> ArmComparison:
    """Compare two arms over seeds and items.

    The tests, which differ in what counts as chance:

    - crossed: other runs and other items, both (`kava.statistics.crossed`). Where runs either
      learn or do not, the share that learns is judged exactly.
    - seeds: other runs on these items; a paired t test of the accuracies, seed by seed.
    - items: other items for these very runs; items as clusters. It takes the luck of a run for
      the merit of its arm, so it belongs to comparisons of models, not of methods.
    - wilcoxon: as seeds, by signed ranks. With five seeds its p is never below 0.0625. Its
      interval is that of seeds.

    Where all answers differ alike, no t can be formed. If the difference is 0, p is 1. Otherwise
    p is that of the exact test that swaps labels: of runs between the arms (crossed), of the two
    runs of a seed (seeds), of the two answers to an item (items); and the interval is Wilson's
    for that number of items.

    Args:
        treatment: [S, N] right or wrong.
        baseline: [S, N], the same seeds and items in the same order.
        test: which of the tests decides.
        confidence: of the intervals; 1 − confidence is the level of `minimum_detectable`.
        levels: the two kinds of runs, from all runs of the study (`kava.statistics.levels_of`);
            None: from the runs of these two arms.
        num_resamples: of the bootstrap over items; 0 leaves it out.
        seed: of the bootstrap.

    Raises:
        ValueError: other shapes, fewer than two seeds or items, values that are not 0 or 1, an
            unknown test.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = compare_arms(rng.random((5, 200)) < 0.8, rng.random((5, 200)) < 0.6)
        >>> found.low < found.difference < found.high, found.p < 0.05
        (True, True)
    """
    treatment_SN, baseline_SN = _checked(treatment, baseline)
    if test not in TESTS:
        raise ValueError(f"test={test!r} is none of {', '.join(TESTS)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    num_seeds, num_items = treatment_SN.shape
    runs_S, others_S = treatment_SN.mean(1), baseline_SN.mean(1)
    if levels is None:
        levels = levels_of([runs_S, others_S])
    between = Difference(treatment_SN, baseline_SN, levels)
    difference_SN = treatment_SN - baseline_SN
    difference_S, difference_N = difference_SN.mean(1), difference_SN.mean(0)
    difference = float(difference_SN.mean())
    seed_std = _std(difference_S)
    spreads = {
        "crossed": between.spread,
        "seeds": Spread(seed_std**2 / num_seeds, 0, 0, num_seeds - 1),
        "items": Spread(_std(difference_N) ** 2 / num_items, 0, 0, num_items - 1),
    }
    exact = {
        "crossed": 2 / comb(2 * num_seeds, num_seeds),
        "seeds": 2 / 2**num_seeds,
        "items": 2.0 ** (1 - num_items),
    }
    judged = {
        name: _judge(difference, spread, exact[name], num_items, confidence)
        for name, spread in spreads.items()
    }
    chosen = judged["seeds" if test == "wilcoxon" else test]
    error, degrees = spreads.get(test, Spread(0, 0, 0, 0)).error, 0.0
    if test == "crossed" and levels.are_two:
        chosen = _Judged(*between.interval(confidence), between.p())
        error, degrees = between.error(confidence), MANY_DEGREES
    elif test != "wilcoxon":
        degrees = spreads[test].degrees
    detectable = None
    if error**2 >= NO_VARIANCE:
        detectable = detectable_effect(error, degrees, alpha=1 - confidence, power=POWER)
    wilcoxon_p = _wilcoxon(difference_S)
    bootstrap = None
    if num_resamples:
        bootstrap = bca_interval(
            difference_N, confidence=confidence, num_resamples=num_resamples, seed=seed
        )
    return ArmComparison(
        test=test,
        num_seeds=num_seeds,
        num_items=num_items,
        confidence=confidence,
        accuracy_treatment=float(treatment_SN.mean()),
        accuracy_baseline=float(baseline_SN.mean()),
        interval_treatment=interval_of_mean(treatment_SN, levels, confidence),
        interval_baseline=interval_of_mean(baseline_SN, levels, confidence),
        difference=difference,
        low=chosen.low,
        high=chosen.high,
        p=wilcoxon_p if test == "wilcoxon" else chosen.p,
        item_low=judged["items"].low,
        item_high=judged["items"].high,
        item_p=judged["items"].p,
        seed_differences=tuple(difference_S.tolist()),
        seed_std=seed_std,
        d_z=difference / seed_std if seed_std else None,
        paired_t_p=judged["seeds"].p,
        wilcoxon_p=wilcoxon_p,
        bootstrap_low=bootstrap.low if bootstrap else None,
        bootstrap_high=bootstrap.high if bootstrap else None,
        minimum_detectable=detectable,
        learned=compare_learned(runs_S, others_S, levels.threshold, confidence)
        if levels.are_two
        else None,
    )


def accuracy_interval(
    correct: ArrayLike, *, confidence: float = 0.95, levels: Levels | None = None
) -> Interval:
    """The interval of an arm's accuracy, for other runs and other items.

    All runs alike in every item leave no spread between runs, and one accuracy of 0 or 1 none
    between items either: then it is Wilson's interval, for that number of items.

    Args:
        correct: [S, N] right or wrong, at least two runs.
        confidence: between 0 and 1.
        levels: the two kinds of runs, from all runs of the study; None: from these.

    Example:
        >>> low, high = accuracy_interval(np.ones((5, 100), bool))
        >>> round(low, 3), round(high, 3)
        (0.963, 1.0)
    """
    correct_SN = np.asarray(correct, dtype=float)
    if levels is None:
        levels = levels_of(correct_SN.mean(1))
    return interval_of_mean(correct_SN, levels, confidence)


def _judge(
    difference: float, spread: Spread, exact_p: float, num_items: int, confidence: float
) -> _Judged:
    from scipy import stats

    if spread.variance < NO_VARIANCE:
        if abs(difference) < 1e-12:
            most = wilson(0, num_items, confidence).high
            return _Judged(-most, most, 1.0)
        size = abs(difference)
        low = size * wilson(num_items, num_items, confidence).low
        ends = (low, size) if difference > 0 else (-size, -low)
        return _Judged(*ends, exact_p)
    reach = spread.reach(confidence)
    p = float(2 * stats.t.sf(abs(difference) / spread.error, spread.degrees))
    low, high = max(-1.0, difference - reach), min(1.0, difference + reach)
    return _Judged(low, high, p)


def _wilcoxon(difference_S: np.ndarray) -> float:
    from scipy import stats

    rounded_S = difference_S.round(12)  # ranks of equal differences are tied, whatever their sums
    if not rounded_S.any():
        return 1.0
    return float(stats.wilcoxon(rounded_S).pvalue)


def _std(values: np.ndarray) -> float:
    """The sample's standard deviation, exactly 0 for values equal but for rounding."""
    return 0.0 if np.ptp(values) < 1e-12 else float(values.std(ddof=1))


def _checked(treatment: ArrayLike, baseline: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    treatment_SN, baseline_SN = (np.asarray(one) for one in (treatment, baseline))
    if treatment_SN.ndim != 2 or treatment_SN.shape != baseline_SN.shape:
        raise ValueError(
            f"the treatment is {list(treatment_SN.shape)} and the baseline "
            f"{list(baseline_SN.shape)}; both must be [seeds, items], with the same seeds and items"
        )
    num_seeds, num_items = treatment_SN.shape
    if num_seeds < 2:
        raise ValueError(
            f"{num_seeds} seed per arm shows no spread between runs; train at least 2, better 5"
        )
    if num_items < 2:
        raise ValueError(f"{num_items} item shows no spread between items; take at least 2")
    for name, arm_SN in (("treatment", treatment_SN), ("baseline", baseline_SN)):
        if not np.isin(arm_SN, (0, 1)).all():
            raise ValueError(f"the {name} holds values other than right (1) and wrong (0)")
    return treatment_SN.astype(float), baseline_SN.astype(float)
