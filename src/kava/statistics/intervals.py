"""How far an accuracy can be trusted."""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a proportion, both ends within 0 and 1."""

    low: float
    high: float


def wilson(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of an accuracy.

    It covers as often as it says also near 0 and 1 and for few items, where the usual normal
    approximation does not (Brown, Cai and DasGupta, Statistical Science 2001); computed by
    statsmodels.

    Args:
        correct: right answers.
        total: all answers.
        confidence: how often such an interval covers the true accuracy, between 0 and 1.

    Raises:
        ValueError: no answers, more right ones than there are, a confidence outside (0, 1).

    Example:
        >>> low, high = wilson(96, 100)
        >>> round(low, 3), round(high, 3)
        (0.902, 0.984)
    """
    from statsmodels.stats.proportion import proportion_confint

    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} right answers of {total} give no accuracy")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    low, high = proportion_confint(correct, total, alpha=1 - confidence, method="wilson")
    share = correct / total  # at 0 and 1 the end of the interval, but for rounding
    return Interval(max(0.0, min(float(low), share)), min(1.0, max(float(high), share)))
