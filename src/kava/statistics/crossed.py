"""How far the mean over runs and items would move with other runs and other items.

Shapes: S seeds, N items.

A run's answers differ from another's for three reasons: the run (its seed), the item, and what is
left (this run on this item). Runs and items are both drawn from more than were seen, so both
count. From the table of differences d_SN between two arms, and from the runs' accuracies,

    V = V_runs + V_items,
    V_runs  = Var_s(accuracy of a treatment run) / S + Var_s(accuracy of a baseline run) / S,
    V_items = max(0, MS_items − MS_rest) / (S · N),

where the mean squares are those of the two-way table without replication (Scheffé, The Analysis
of Variance, 1959, section 7.4). V_runs holds what is left too, as a mean over N items. Two runs
with the same seed in two arms are two trainings: their variances add up, and their degrees of
freedom, 2S − 2 together, go into Satterthwaite's (Biometrics Bulletin 1946).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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


def spread_of_difference(treatment_SN: np.ndarray, baseline_SN: np.ndarray) -> Spread:
    """The spread of the difference in accuracy between two arms.

    Args:
        treatment_SN: right or wrong, 1 or 0.
        baseline_SN: likewise, on the same items.
    """
    num_seeds = len(treatment_SN)
    runs = sum(arm_SN.mean(1).var(ddof=1) / num_seeds for arm_SN in (treatment_SN, baseline_SN))
    return _spread(float(runs), 2 * num_seeds - 2, treatment_SN - baseline_SN)


def spread_of_mean(values_SN: np.ndarray) -> Spread:
    """The spread of one arm's accuracy."""
    num_seeds = len(values_SN)
    return _spread(float(values_SN.mean(1).var(ddof=1) / num_seeds), num_seeds - 1, values_SN)


def _spread(runs: float, degrees_of_runs: int, values_SN: np.ndarray) -> Spread:
    num_seeds, num_items = values_SN.shape
    mean_N = values_SN.mean(0)
    rest_SN = values_SN - values_SN.mean(1, keepdims=True) - mean_N + values_SN.mean()
    degrees_of_rest = (num_seeds - 1) * (num_items - 1)
    square_of_rest = float((rest_SN**2).sum() / degrees_of_rest)
    square_of_items = float(num_seeds * mean_N.var(ddof=1))
    items = max(0.0, square_of_items - square_of_rest) / values_SN.size
    if runs + items < 1e-15:  # runs of one accuracy that err on other items: what is left counts
        variance = square_of_rest / values_SN.size
        return Spread(variance, variance, 0.0, degrees_of_rest)
    variance = runs + items
    degrees = variance**2 / (runs**2 / degrees_of_runs + items**2 / (num_items - 1))
    return Spread(variance, runs, items, degrees)
