"""How many runs of each arm did something, compared exactly: 4 of 5 against 0 of 5.

Shapes: D differences of the two shares, T tables of two counts, P values of the nuisance share.

The test is unconditional (Barnard, Biometrika 1947) and orders tables by the score statistic of
Miettinen and Nurminen (Statistics in Medicine 1985). Inverting it, two-sided, for every difference
between the true shares gives an interval that covers at least as often as it says, whatever the
true shares are (Chan and Zhang, Biometrics 1999; Agresti and Min, Biometrics 2001). For a
difference of 0 the p is that of `scipy.stats.barnard_exact`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kava.statistics.intervals import Interval

STEP = 0.005
NUM_SHARES = 101
MOST_EXACT = 30
"""Runs an arm up to which all tables are counted; beyond, the score statistic is normal enough."""

_DIFFERENCES_D = np.linspace(-1, 1, round(2 / STEP) + 1)


def share_p(treatment: int, baseline: int, total: int) -> float:
    """The p of equal shares, two-sided, by the exact unconditional test.

    Args:
        treatment: runs of `total` that did it.
        baseline: runs of the other arm that did.
        total: runs of each arm.

    Raises:
        ValueError: a count below 0 or above the total.

    Example:
        >>> round(share_p(5, 0, 5), 5), round(share_p(4, 0, 5), 3)
        (0.00195, 0.021)
    """
    return float(np.interp(0.0, _DIFFERENCES_D, p_curve(treatment, baseline, total)))


def share_interval(treatment: int, baseline: int, total: int, confidence: float = 0.95) -> Interval:
    """The interval of the difference between two shares, as `share_p`.

    Example:
        >>> low, high = share_interval(5, 0, 5)
        >>> round(low, 2), high
        (0.39, 1.0)
    """
    return ends(p_curve(treatment, baseline, total), confidence)


def share_power(treatment: float, baseline: float, total: int, alpha: float = 0.05) -> float:
    """How often the exact test finds a difference between two true shares.

    Args:
        treatment: share of its runs that do it.
        baseline: share of the other arm's.
        total: runs of each arm, at most `MOST_EXACT`.
        alpha: level of the test.

    Example:
        >>> round(share_power(0.8, 0.0, 5), 2), round(share_power(0.8, 0.0, 10), 2)
        (0.74, 1.0)
    """
    from scipy import stats

    if total > MOST_EXACT:
        raise ValueError(f"{total} runs are more than the {MOST_EXACT} that are counted exactly")
    counts = np.arange(total + 1)
    p_T = _worst_p(total, 0.0)
    chance_T = np.outer(
        stats.binom.pmf(counts, total, treatment), stats.binom.pmf(counts, total, baseline)
    ).ravel()
    return float(chance_T[p_T < alpha].sum())


def p_curve(treatment: int, baseline: int, total: int) -> np.ndarray:
    """[D] the p of every difference between the true shares, from −1 to 1.

    Raises:
        ValueError: as `share_p`.
    """
    for count in (treatment, baseline):
        if not 0 <= count <= total or total < 1:
            raise ValueError(f"{count} of {total} runs is no share")
    if total > MOST_EXACT:
        return score_curve(treatment, baseline, total)
    return _exact(total)[:, treatment * (total + 1) + baseline]


def ends(curve_D: np.ndarray, confidence: float) -> Interval:
    """The least and the largest difference whose p is above 1 − confidence."""
    level = min(1 - confidence, float(curve_D.max()) - 1e-9)  # the grid may miss the estimate
    above = np.flatnonzero(curve_D > level)
    first, last = above[0], above[-1]
    return Interval(
        _crossing(curve_D, first - 1, first, level), _crossing(curve_D, last + 1, last, level)
    )


def _crossing(curve_D: np.ndarray, below: int, above: int, level: float) -> float:
    """Where the curve crosses a level between two neighbours; the outer one may not be there."""
    if not 0 <= below < len(curve_D):
        return float(_DIFFERENCES_D[above])
    part = (level - curve_D[below]) / (curve_D[above] - curve_D[below])
    return float(_DIFFERENCES_D[below] + part * (_DIFFERENCES_D[above] - _DIFFERENCES_D[below]))


@lru_cache(maxsize=64)
def _exact(total: int) -> np.ndarray:
    """[D, T] the p of every table at every difference."""
    half = len(_DIFFERENCES_D) // 2
    upper_DT = np.array([_worst_p(total, float(one)) for one in _DIFFERENCES_D[half:]])
    counts_T = np.arange((total + 1) ** 2)
    swapped_T = counts_T % (total + 1) * (total + 1) + counts_T // (total + 1)
    found_DT = np.concatenate([upper_DT[:0:-1][:, swapped_T], upper_DT])
    found_DT.setflags(write=False)
    return found_DT


def _worst_p(total: int, difference: float) -> np.ndarray:
    """[T] the p of every table at one difference of 0 or more, the nuisance share at its worst."""
    from scipy import stats

    counts = np.arange(total + 1)
    treatment_T, baseline_T = (one.ravel() for one in np.meshgrid(counts, counts, indexing="ij"))
    score_T = np.abs(_score(treatment_T, baseline_T, total, difference)).round(9)
    order_T = np.argsort(-score_T, kind="stable")
    share_P = np.linspace(0, 1 - difference, NUM_SHARES)[:, None]
    of_baseline_PS = stats.binom.pmf(counts, total, share_P)
    of_treatment_PS = stats.binom.pmf(counts, total, np.minimum(share_P + difference, 1.0))
    table_PT = np.einsum("ps,pt->pst", of_treatment_PS, of_baseline_PS).reshape(NUM_SHARES, -1)
    as_far_T = np.cumsum(table_PT[:, order_T], axis=1).max(0)
    last_T = np.searchsorted(-score_T[order_T], -score_T, side="right") - 1  # as far counts too
    found: np.ndarray = np.minimum(as_far_T[last_T], 1.0)
    return found


def score_curve(treatment: int, baseline: int, total: int) -> np.ndarray:
    """[D] the p of every difference if the score were normal (Miettinen and Nurminen 1985)."""
    from scipy import stats

    shrink = (1 - 1 / (2 * total)) ** 0.5
    counts = np.array([treatment]), np.array([baseline])
    scores = [float(_score(*counts, total, one)[0]) for one in _DIFFERENCES_D]
    found: np.ndarray = 2 * stats.norm.sf(np.abs(scores) * shrink)
    return found


def _score(
    treatment_T: np.ndarray, baseline_T: np.ndarray, total: int, difference: float
) -> np.ndarray:
    """[T] observed less assumed difference, over its error where the assumption holds.

    The shares that are likeliest under the assumption solve a cubic; its solution is Miettinen
    and Nurminen's, in the letters of their appendix.
    """
    both_T = treatment_T + baseline_T
    l3 = 2 * total
    l2_T = 3 * total * difference - l3 - both_T
    l1_T = (total * difference - l3 - 2 * baseline_T) * difference + both_T
    l0_T = baseline_T * difference * (1 - difference)
    q_T = l2_T**3 / (3 * l3) ** 3 - l1_T * l2_T / (6 * l3**2) + l0_T / (2 * l3)
    root_T = np.sqrt(np.maximum(l2_T**2 / (3 * l3) ** 2 - l1_T / (3 * l3), 0))
    p_T = np.where(q_T < 0, -1.0, 1.0) * root_T
    cosine_T = np.divide(q_T, p_T**3, out=np.zeros_like(p_T), where=np.abs(p_T) > 1e-12)
    angle_T = (np.pi + np.arccos(np.clip(cosine_T, -1, 1))) / 3
    low_T = np.clip(2 * p_T * np.cos(angle_T) - l2_T / (3 * l3), max(0.0, -difference), 1)
    high_T = np.clip(low_T + difference, 0, 1)
    error_T = np.sqrt((low_T * (1 - low_T) + high_T * (1 - high_T)) / total)
    apart_T = (treatment_T - baseline_T) / total - difference
    apart_T[np.abs(apart_T) < 1e-12] = 0.0
    impossible_T = np.where(apart_T == 0, 0.0, np.sign(apart_T) * 1e9)
    return np.divide(apart_T, error_T, out=impossible_T, where=error_T > 1e-9)
