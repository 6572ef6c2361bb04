"""What a comparison allows to be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kava.statistics.seeds import ArmComparison

Kind = Literal["better", "worse", "no better", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict and the sentence that says it.

    Attributes:
        kind: better or worse where the adjusted p is below alpha; else no better where the
            interval rules out a gain of interest; else undecided.
        sentence: in plain words, with the interval and p.
        clears_minimum: the whole interval lies beyond the minimum effect, on the verdict's side;
            always False of an undecided one.
    """

    kind: Kind
    sentence: str
    clears_minimum: bool


def verdict(
    comparison: ArmComparison, *, p_adjusted: float, minimum_effect: float, alpha: float = 0.05
) -> Verdict:
    """Say what a comparison carries, and no more.

    Args:
        comparison: of a treatment with its baseline.
        p_adjusted: its p after Holm over all comparisons of the study (`kava.statistics.holm`).
        minimum_effect: the smallest gain in accuracy of interest, above 0, such as 0.05.
        alpha: the level of the study.

    Raises:
        ValueError: an adjusted p below the comparison's own, a minimum effect or an alpha outside
            (0, 1).

    Example:
        >>> import numpy as np
        >>> from kava.statistics import compare_arms
        >>> rng = np.random.default_rng(0)
        >>> same = compare_arms(rng.random((5, 2000)) < 0.8, rng.random((5, 2000)) < 0.8)
        >>> verdict(same, p_adjusted=same.p, minimum_effect=0.05).kind
        'no better'
    """
    if not 0 <= p_adjusted <= 1 or p_adjusted < comparison.p - 1e-12:
        raise ValueError(
            f"p_adjusted={p_adjusted} must lie between the comparison's p={comparison.p} and 1"
        )
    for name, value in (("minimum_effect", minimum_effect), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} must lie between 0 and 1, such as 0.05")
    found = comparison
    significant = p_adjusted < alpha
    gain = f"{_points(abs(found.difference))} points"
    figures = (
        f"({found.confidence:.0%} interval {_signed(found.low)} to {_signed(found.high)}, "
        f"{_p(p_adjusted)})"
    )
    least = f"{_points(minimum_effect)} points"
    if significant and found.difference > 0:
        clears = found.low >= minimum_effect
        rest = (
            f"The whole interval lies above the least gain of interest, {least}."
            if clears
            else f"The interval does not rule out a gain smaller than that of interest, {least}."
        )
        return Verdict(
            kind="better",
            sentence=f"Better by {gain} {figures}. {rest}",
            clears_minimum=clears,
        )
    if significant and found.difference < 0:
        clears = found.high <= -minimum_effect
        rest = (
            f"The whole interval lies beyond a loss of {least}."
            if clears
            else f"The interval does not rule out a loss smaller than {least}."
        )
        return Verdict(
            kind="worse",
            sentence=f"Worse by {gain} {figures}. {rest}",
            clears_minimum=clears,
        )
    if found.high < minimum_effect:
        return Verdict(
            kind="no better",
            sentence=(
                f"No better: the difference is {_signed(found.difference)} points {figures}, and "
                f"the interval rules out a gain of {least}, the least of interest."
            ),
            clears_minimum=True,
        )
    reach = ""
    if found.minimum_detectable is not None:
        reach = (
            f"; this study would have found a true difference of "
            f"{_points(found.minimum_detectable)} points four times in five"
            if found.minimum_detectable <= 1
            else "; runs lie so far apart that this study would have found no difference four "
            "times in five, however large"
        )
    return Verdict(
        kind="undecided",
        sentence=(
            f"Undecided: the difference is {_signed(found.difference)} points {figures}. It may be "
            f"chance, and a gain of {least} is not ruled out{reach}."
        ),
        clears_minimum=False,
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _p(p: float) -> str:
    return "p below 0.0001" if p < 1e-4 else f"p = {p:.2g}"
