"""What a comparison allows to be said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kava.format import p_clause, p_text, point_interval, points
from kava.statistics.learned import Learned
from kava.statistics.seeds import ArmComparison

Kind = Literal["better", "worse", "no better", "undecided"]

SEEDS_TO_RULE_OUT = 5
"""With fewer seeds no gain is called ruled out, however narrow the interval: see `unseen_share`."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict and the sentence that says it.

    Attributes:
        kind: better or worse where the adjusted p is below alpha; else no better where the
            interval rules out a gain of interest and there are seeds enough to say so
            (`SEEDS_TO_RULE_OUT`; a test over items asks of these very runs and needs none); else
            undecided.
        sentence: in plain words, with the interval and p.
        clears_minimum: the whole interval lies beyond the minimum effect, on the verdict's side;
            always False of an undecided one.
    """

    kind: Kind
    sentence: str
    clears_minimum: bool


def unseen_share(num_seeds: int, confidence: float = 0.95) -> float:
    """The largest share of an arm's runs that may end in a way that none of its runs has shown.

    The upper end of the exact one-sided interval of 0 out of S runs (Clopper & Pearson 1934).

    Raises:
        ValueError: no seed, or a confidence outside (0, 1).

    Example:
        >>> [round(unseen_share(num_seeds), 2) for num_seeds in (1, 3, 5, 20)]
        [0.95, 0.63, 0.45, 0.14]
    """
    if num_seeds < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"num_seeds={num_seeds} must be at least 1 and confidence={confidence} between 0 and 1"
        )
    return float(1 - (1 - confidence) ** (1 / num_seeds))


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
    kind, sentence, clears = _said(found, p_adjusted, minimum_effect, alpha)
    if found.learned is not None and found.test == "crossed":
        sentence += _of_runs(found.learned, p_adjusted, alpha)
    return Verdict(kind=kind, sentence=sentence, clears_minimum=clears)


def _said(
    found: ArmComparison, p_adjusted: float, minimum_effect: float, alpha: float
) -> tuple[Kind, str, bool]:
    """The kind, the sentence of the accuracies, and whether the interval clears the minimum."""
    least = points(minimum_effect).lstrip("+")
    figures = f"({_interval(found)}, {p_clause(p_adjusted)})"
    significant = p_adjusted < alpha
    if significant and found.difference > 0:
        clears = found.low >= minimum_effect
        rest = (
            f"The whole interval lies above the least gain of interest, {least}."
            if clears
            else f"The interval does not rule out a gain smaller than that of interest, {least}."
        )
        gain = points(found.difference).lstrip("+")
        return "better", f"Better by {gain} {figures}. {rest}", clears
    if significant and found.difference < 0:
        clears = found.high <= -minimum_effect
        rest = (
            f"The whole interval lies beyond a loss of {least}."
            if clears
            else f"The interval does not rule out a loss smaller than {least}."
        )
        loss = points(-found.difference).lstrip("+")
        return "worse", f"Worse by {loss} {figures}. {rest}", clears
    seen = f"the difference is {points(found.difference)} {figures}"
    if not found.high < minimum_effect:
        chance = (
            f"The interval of this comparison alone lies above a gain of {least}, but beside the "
            f"others of the study it may be chance"
            if found.low >= minimum_effect
            else f"It may be chance, and a gain of {least} is not ruled out"
        )
        return "undecided", f"Undecided: {seen}. {chance}{_reach(found)}.", False
    if found.test != "items" and found.num_seeds < SEEDS_TO_RULE_OUT:
        few = (
            f"These runs show no gain of {least}, but {found.num_seeds} seeds are too few to "
            f"exclude one: what happens in up to {100 * unseen_share(found.num_seeds):.0f} % of "
            f"runs may be in none of them."
        )
        return "undecided", f"Undecided: {seen}. {few}", False
    those = "these very runs" if found.test == "items" else "runs that spread as these do"
    if found.learned is not None and found.test == "crossed":
        those = "runs that learn or do not as these do"
    no_gain = f"for {those} the interval rules out a gain of {least}, the least of interest"
    return "no better", f"No better: {seen}, and {no_gain}.", True


def _of_runs(learned: Learned, p_adjusted: float, alpha: float) -> str:
    """How many runs learned, and whether more seeds were needed for any verdict."""
    total = learned.num_seeds
    said = (
        f" {learned.treatment} of {total} runs learned, {learned.baseline} of {total} of the other "
        f"arm (exact p = {p_text(learned.p)} for this pair)."
    )
    if p_adjusted >= alpha and abs(learned.treatment - learned.baseline) == total:
        said += (
            f" No outcome is clearer than that: {total} seeds an arm are too few for a verdict "
            f"after the correction for several comparisons."
        )
    return said


def _interval(found: ArmComparison) -> str:
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return "no interval can be formed"
    return f"{found.confidence:.0%} interval {point_interval(found.low, found.high)}"


def _reach(found: ArmComparison) -> str:
    """What the study would have found, at the spread that its runs show."""
    least = found.minimum_detectable
    if least is None or not math.isfinite(least):
        return ""
    if least > 1:
        return (
            "; runs lie so far apart that this study would have found no difference four times in "
            "five, however large"
        )
    return (
        f"; at the spread of these runs a true difference of {points(least).lstrip('+')} would "
        f"have been found four times in five"
    )
