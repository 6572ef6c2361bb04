"""Which runs learned their task, where a run either learns it or does not.

Five runs at 100 % show no spread, and neither do five at chance; an interval that knows only the
spread that was seen then has no width, whatever the other runs of the arm would do. So where runs
are of two kinds, their accuracy is taken apart: the level of the run's kind, and the rest,

    accuracy = low + (high − low) · learned + rest,

and the share of runs that learned is judged exactly, from its count.

Shapes: S seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kava.statistics.intervals import Interval
from kava.statistics.shares import share_interval, share_p

SPAN = 0.5
"""Runs whose accuracies span at least this much are of two kinds, where a plan does not say."""

NOTHING_LEARNED = 0.1
"""Where all runs have less than this right, none has learned, where a plan does not say."""


class Levels(NamedTuple):
    """The two kinds of runs.

    Attributes:
        threshold: a run has learned whose accuracy is at least this; 0 where all runs are of one
            kind and only their accuracies differ.
        low: accuracy of a run that has not learned.
        high: of one that has.
    """

    threshold: float
    low: float
    high: float

    @property
    def are_two(self) -> bool:
        """Whether runs are of two kinds at all."""
        return self.threshold > 0


GRADED = Levels(0.0, 0.0, 0.0)
"""Runs of one kind, whose accuracies are a matter of degree."""


def levels_of(accuracies: ArrayLike, declared: float | None = None) -> Levels:
    """Whether runs either learn or do not, and the accuracies of the two kinds.

    Where nothing is declared, they are of two kinds if their accuracies span half of the scale or
    more, and the threshold is half-way between the lowest and the highest; or if all are below a
    tenth: none has learned then, and what one that learns has right is not known.

    Args:
        accuracies: of all runs of a study that are compared, whatever their arm.
        declared: the threshold that the plan names; 0: runs are of one kind.

    Returns:
        Levels; a kind that no run is of has 0 (not learned) or 1 (learned), which makes the
        interval wide rather than narrow.

    Raises:
        ValueError: a threshold outside [0, 1), an accuracy outside [0, 1], no run.

    Example:
        >>> levels_of([1.0, 1.0, 0.04, 0.06])
        Levels(threshold=0.52, low=0.05, high=1.0)
        >>> levels_of([0.71, 0.74, 0.69, 0.75]) == GRADED
        True
    """
    runs = np.asarray(accuracies, dtype=float).ravel()
    if not runs.size or not ((runs >= 0) & (runs <= 1)).all():
        raise ValueError("accuracies must be shares from 0 to 1, of at least one run")
    if declared is not None and not 0 <= declared < 1:
        raise ValueError(f"a threshold of {declared} for learned runs must lie in [0, 1)")
    if declared is None:
        declared = 0.0
        if np.ptp(runs) >= SPAN:
            declared = float(runs.min() + runs.max()) / 2
        elif runs.max() < NOTHING_LEARNED:
            declared = SPAN
    if declared == 0:
        return GRADED
    below, above = runs[runs < declared], runs[runs >= declared]
    low = float(below.mean()) if below.size else 0.0
    high = float(above.mean()) if above.size else 1.0
    return Levels(declared, low, high)


class Learned(NamedTuple):
    """How many runs of two arms learned.

    Attributes:
        threshold: a run has learned whose accuracy is at least this.
        num_seeds: runs per arm.
        treatment: runs of the treatment that learned.
        baseline: runs of the baseline.
        low: lower end of the interval of the difference between the shares, exact.
        high: its upper end.
        p: that of equal shares, by the exact unconditional test (`kava.statistics.shares`).
        mcnemar_p: exact McNemar test over seeds, which asks how often one of the two runs of a
            seed learned and the other did not; with five seeds never below 0.0625.
    """

    threshold: float
    num_seeds: int
    treatment: int
    baseline: int
    low: float
    high: float
    p: float
    mcnemar_p: float


def compare_learned(
    treatment_S: np.ndarray, baseline_S: np.ndarray, threshold: float, confidence: float = 0.95
) -> Learned:
    """Compare how many runs of two arms learned.

    Args:
        treatment_S: accuracies of the runs.
        baseline_S: those of the other arm, with the same seeds.
        threshold: a run has learned whose accuracy is at least this.
        confidence: of the interval.

    Example:
        >>> found = compare_learned(np.array([1.0, 1.0, 0.9]), np.array([0.0, 0.1, 1.0]), 0.5)
        >>> found.treatment, found.baseline, found.mcnemar_p
        (3, 1, 0.5)
    """
    from statsmodels.stats.contingency_tables import mcnemar

    own_S, other_S = treatment_S >= threshold, baseline_S >= threshold
    total, own, other = len(own_S), int(own_S.sum()), int(other_S.sum())
    only_own, only_other = int((own_S & ~other_S).sum()), int((other_S & ~own_S).sum())
    low, high = share_interval(own, other, total, confidence)
    return Learned(
        threshold=threshold,
        num_seeds=total,
        treatment=own,
        baseline=other,
        low=low,
        high=high,
        p=share_p(own, other, total),
        mcnemar_p=float(mcnemar([[0, only_own], [only_other, 0]], exact=True).pvalue),
    )


def learned_interval(learned: int, total: int, confidence: float = 0.95) -> Interval:
    """The exact interval of the share of an arm's runs that learn (Clopper & Pearson 1934).

    Example:
        >>> low, high = learned_interval(4, 5)
        >>> round(low, 2), round(high, 2)
        (0.28, 0.99)
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(learned, total, alpha=1 - confidence, method="beta")
    return Interval(float(low), float(high))
