"""How far a mean over runs and items would move with other runs and other items.

Shapes: S seeds, N items.

A run's answers differ from another's for three reasons: the run (its seed), the item, and what is
left (this run on this item). Runs and items are both drawn from more than were seen, so both
count. From the table of differences d_SN between two arms, and from the runs' accuracies,

    V = V_treatment + V_baseline + V_items,
    V_arm   = Var_s(accuracy of a run of the arm) / S,
    V_items = max(0, MS_items − MS_rest) / (S · N),

where the mean squares are those of the two-way table without replication (Scheffé, The Analysis
of Variance, 1959, section 7.4). V_arm holds what is left too, as a mean over N items. Two runs
with the same seed in two arms are two trainings: their variances add up, each with the S − 1
degrees of freedom of its own arm (Welch, Biometrika 1947), and Satterthwaite's (Biometrics
Bulletin 1946) for the sum.

Where runs either learn or do not (`kava.statistics.learned`), that is the spread of the rest, what
a run's accuracy has beyond the level of its kind. The share of runs that learn has an exact
interval, and the two are put together by the squares of their distances from the estimate, each
side on its own (Newcombe, Statistics in Medicine 1998; Zou and Donner, Statistics in Medicine
2008):

    low = d − √( (gap · (share − share_low))² + (t · √V)² ).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kava.statistics.intervals import Interval, wilson
from kava.statistics.learned import Levels, learned_interval
from kava.statistics.shares import ends, p_curve, share_p

NO_VARIANCE = 1e-15  # what rounding may leave of none
SMALLEST_P = 1e-12


class Spread(NamedTuple):
    """The variance of a mean over runs and items, and how well it is known.

    Attributes:
        variance: of the mean.
        runs: its part from runs, what is left included.
        items: its part from items; 0 where items show no more than what is left.
        degrees: of freedom, for a t.
    """

    variance: float
    runs: float
    items: float
    degrees: float

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(self.variance**0.5)

    def reach(self, confidence: float) -> float:
        """Half the width of the mean's interval."""
        from scipy import stats

        if self.variance < NO_VARIANCE:
            return 0.0
        return float(stats.t.ppf((1 + confidence) / 2, self.degrees)) * self.error


def spread_of_difference(
    treatment_SN: np.ndarray, baseline_SN: np.ndarray, levels: Levels
) -> Spread:
    """The spread of the difference in accuracy between two arms, or of its rest.

    Args:
        treatment_SN: right or wrong, 1 or 0.
        baseline_SN: those of the other arm, on the same items.
        levels: of the two kinds of runs, where there are two.
    """
    arms = [rest_of(one_SN.mean(1), levels) for one_SN in (treatment_SN, baseline_SN)]
    return _spread(arms, treatment_SN - baseline_SN)


def spread_of_mean(values_SN: np.ndarray, levels: Levels) -> Spread:
    """The spread of one arm's accuracy, or of its rest."""
    return _spread([rest_of(values_SN.mean(1), levels)], values_SN)


def rest_of(accuracy_S: np.ndarray, levels: Levels) -> np.ndarray:
    """[S] what accuracies have beyond the level of the run's kind; all of them for one kind."""
    if not levels.are_two:
        return accuracy_S
    return accuracy_S - np.where(accuracy_S >= levels.threshold, levels.high, levels.low)


def interval_of_mean(values_SN: np.ndarray, levels: Levels, confidence: float) -> Interval:
    """The interval of an arm's accuracy, for other runs and other items."""
    accuracy_S = values_SN.mean(1)
    mean, num_items = float(accuracy_S.mean()), values_SN.shape[1]
    below, above = 0.0, 0.0
    if levels.are_two:
        learned_S = accuracy_S >= levels.threshold
        share = learned_interval(int(learned_S.sum()), len(learned_S), confidence)
        gap = levels.high - levels.low
        below = gap * float(learned_S.mean() - share.low)
        above = gap * float(share.high - learned_S.mean())
    elif mean in (0.0, 1.0):
        return wilson(int(mean) * num_items, num_items, confidence)
    reach = spread_of_mean(values_SN, levels).reach(confidence)
    if reach == 0.0:
        reach = wilson(0, num_items, confidence).high
    low, high = mean - (below**2 + reach**2) ** 0.5, mean + (above**2 + reach**2) ** 0.5
    return Interval(max(0.0, low), min(1.0, high))


class Difference:
    """The difference in accuracy between two arms, for other runs and other items.

    Args:
        treatment_SN: right or wrong, 1 or 0.
        baseline_SN: those of the other arm, on the same items.
        levels: of the two kinds of runs, or `GRADED`.
    """

    def __init__(self, treatment_SN: np.ndarray, baseline_SN: np.ndarray, levels: Levels) -> None:
        self.difference = float(treatment_SN.mean() - baseline_SN.mean())
        self.num_items = treatment_SN.shape[1]
        self.spread = spread_of_difference(treatment_SN, baseline_SN, levels)
        self.gap = levels.high - levels.low if levels.are_two else 0.0
        self.share, self.share_p = 0.0, 1.0
        if levels.are_two:
            total = len(treatment_SN)
            own, other = (
                int((one.mean(1) >= levels.threshold).sum()) for one in (treatment_SN, baseline_SN)
            )
            self.share = (own - other) / total
            self.share_p = share_p(own, other, total)
            self.curve_D = p_curve(own, other, total)

    def interval(self, confidence: float) -> Interval:
        """Its interval."""
        below, above = self._reaches(confidence)
        return Interval(max(-1.0, self.difference - below), min(1.0, self.difference + above))

    def _reaches(self, confidence: float) -> tuple[float, float]:
        reach = self.spread.reach(confidence)
        if reach == 0.0:
            reach = wilson(0, self.num_items, confidence).high
        if not self.gap:
            return reach, reach
        share = ends(self.curve_D, confidence)
        below = float(np.hypot(self.gap * (self.share - share.low), reach))
        above = float(np.hypot(self.gap * (share.high - self.share), reach))
        return below, above

    def error(self, confidence: float) -> float:
        """The standard error that a normal interval as wide would have."""
        from scipy import stats

        return float(max(self._reaches(confidence)) / stats.norm.ppf((1 + confidence) / 2))

    def p(self) -> float:
        """The largest level at which the interval leaves out 0.

        Where most of the difference is one of shares, it is no smaller than that of equal shares.
        """
        if self.gap * abs(self.share) > abs(self.difference) / 2:
            return max(self.share_p, self._inverted())
        return self._inverted()

    def _inverted(self) -> float:
        from scipy import optimize

        if abs(self.difference) < SMALLEST_P:
            return 1.0

        def excess(log_p: float) -> float:
            """Above 0 where the interval of this level leaves out 0."""
            found = self.interval(1 - np.exp(log_p))
            return found.low if self.difference > 0 else -found.high

        least, most = np.log(SMALLEST_P), -SMALLEST_P
        if excess(least) > 0:
            return SMALLEST_P
        if excess(most) <= 0:
            return 1.0
        return float(np.exp(optimize.brentq(excess, least, most, xtol=1e-9)))


def _spread(arms: list[np.ndarray], values_SN: np.ndarray) -> Spread:
    num_seeds, num_items = values_SN.shape
    mean_N = values_SN.mean(0)
    rest_SN = values_SN - values_SN.mean(1, keepdims=True) - mean_N + values_SN.mean()
    degrees_of_rest = (num_seeds - 1) * (num_items - 1)
    square_of_rest = float((rest_SN**2).sum() / degrees_of_rest)
    square_of_items = float(num_seeds * mean_N.var(ddof=1))
    items = max(0.0, square_of_items - square_of_rest) / values_SN.size
    parts = [float(one_S.var(ddof=1) / num_seeds) for one_S in arms]
    runs = sum(parts)
    if runs + items < NO_VARIANCE:  # runs of one accuracy that err on other items: what is left
        variance = square_of_rest / values_SN.size
        return Spread(variance, variance, 0.0, degrees_of_rest)
    of_runs = sum(part**2 for part in parts) / (num_seeds - 1)
    variance = runs + items
    degrees = variance**2 / (of_runs + items**2 / (num_items - 1))
    return Spread(variance, runs, items, degrees)
