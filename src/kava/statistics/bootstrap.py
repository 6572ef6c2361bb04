"""The bias-corrected and accelerated bootstrap interval of a mean."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from kava.statistics.intervals import Interval

LEAST_RESAMPLES, MOST_RESAMPLES = 100, 1_000_000
BATCH = 1_000_000  # resampled values in memory at a time, 8 MB


def bca_interval(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """The BCa interval of the mean of independent values, by scipy.

    Items are resampled with replacement; the correction for bias and skew is Efron's (Better
    bootstrap confidence intervals, JASA 1987). The same seed gives the same interval.

    Args:
        values: [N], one per item.
        confidence: between 0 and 1.
        num_resamples: resampled sets of N items.
        seed: of the resampling.

    Returns:
        The interval; None where all values are equal, since resampling them shows no spread, and
        a width of zero would claim a certainty that nobody has.

    Raises:
        ValueError: no values, too few resamples, a confidence outside (0, 1).

    Example:
        >>> low, high = bca_interval([1.0, 0.0, 0.0, -1.0, 1.0, 1.0, 0.0, 1.0])
        >>> round(low, 3), round(high, 3)
        (-0.25, 0.75)
    """
    from scipy import stats

    values_N = np.asarray(values, dtype=float)
    if values_N.ndim != 1 or values_N.size == 0:
        raise ValueError(f"values of shape {list(values_N.shape)} are no list of values per item")
    if not LEAST_RESAMPLES <= num_resamples <= MOST_RESAMPLES:
        raise ValueError(
            f"num_resamples={num_resamples} must be from {LEAST_RESAMPLES}, for an interval at "
            f"all, to {MOST_RESAMPLES:,}, beyond which it does not change"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    if np.ptp(values_N) == 0:
        return None
    with warnings.catch_warnings():
        # scipy warns where the correction is not defined, and answers nan
        warnings.simplefilter("ignore")
        interval = stats.bootstrap(
            (values_N,),
            np.mean,
            n_resamples=num_resamples,
            batch=max(1, BATCH // values_N.size),
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if not np.isfinite([interval.low, interval.high]).all():
        return None
    return Interval(float(interval.low), float(interval.high))
