"""Two models on the same items: who is right where the other is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from kava.statistics.bootstrap import bca_interval
from kava.statistics.intervals import Interval, wilson
from kava.statistics.items import Items, pair


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Model a against model b on the same items; the difference is a − b.

    Attributes:
        num_items: items of both.
        confidence: of all intervals.
        correct_a: how many a has right.
        correct_b: likewise b.
        accuracy_a: their share.
        accuracy_b: likewise b.
        interval_a: Wilson's, of the accuracy of a.
        interval_b: likewise b.
        only_a: discordant items that only a has right.
        only_b: likewise b.
        p: exact McNemar test, two-sided.
        difference: accuracy of a − accuracy of b.
        low: lower end of the difference's BCa bootstrap interval; None where both models are
            right and wrong on the same items, or differ alike on all, so that resampling shows
            no spread.
        high: upper end.
        d_z: Cohen's d_z over items, the mean difference in its own standard deviations; None
            where it has none.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    num_items: int
    confidence: float
    correct_a: int
    correct_b: int
    accuracy_a: float
    accuracy_b: float
    interval_a: Interval
    interval_b: Interval
    only_a: int
    only_b: int
    p: float
    difference: float
    low: float | None
    high: float | None
    d_z: float | None
    num_resamples: int
    seed: int


def compare_items(
    a: Items, b: Items, *, num_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> PairComparison:
    """Compare two models item by item.

    The p is that of McNemar's exact test (Psychometrika 1947): where the models are equally good,
    each of the items on which they differ is won by either with probability one half. It takes
    both models as they are; whether a method is better than another needs several runs of each
    (`kava.statistics.compare_arms`).

    Args:
        a: items of one model.
        b: of the other: the same ids, in any order.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        confidence: of the intervals.

    Raises:
        ValueError: other ids.

    Example:
        >>> import numpy as np
        >>> ids = tuple("abcdefgh")
        >>> a = Items(ids, np.array([1, 1, 1, 1, 1, 1, 1, 0], bool))
        >>> b = Items(ids, np.array([0, 0, 0, 0, 0, 0, 1, 0], bool))
        >>> found = compare_items(a, b)
        >>> found.only_a, found.only_b, found.p
        (6, 0, 0.03125)
    """
    from statsmodels.stats.contingency_tables import mcnemar

    a_N, b_N = pair(a, b)
    num_items = a_N.size
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    difference_N = a_N.astype(float) - b_N
    deviation = float(difference_N.std(ddof=1)) if num_items > 1 else 0.0
    difference = (only_a - only_b) / num_items
    interval = bca_interval(
        difference_N, confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    table = [[int((a_N & b_N).sum()), only_a], [only_b, int((~a_N & ~b_N).sum())]]
    return PairComparison(
        num_items=num_items,
        confidence=confidence,
        correct_a=a.num_correct,
        correct_b=b.num_correct,
        accuracy_a=a.accuracy,
        accuracy_b=b.accuracy,
        interval_a=wilson(a.num_correct, num_items, confidence),
        interval_b=wilson(b.num_correct, num_items, confidence),
        only_a=only_a,
        only_b=only_b,
        p=float(mcnemar(table, exact=True).pvalue),
        difference=difference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        d_z=difference / deviation if deviation else None,
        num_resamples=num_resamples,
        seed=seed,
    )
