"""Data classes for the comparisons and conclusions of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.report.areas import Areas
from kava.report.logs import ArmLogs
from kava.report.outcomes import Steps

if TYPE_CHECKING:
    from kava.statistics import ArmComparison, Verdict


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparison of an arm with another.

    Attributes:
        arm: name of the arm.
        against: name of the arm that it is compared with.
        comparison: comparison of their correct answers.
        p_adjusted: p after Holm's correction over the family of this comparison.
        verdict: the verdict that follows.
        areas: areas under their learning curves; None if one of them has no curve.
        learned_p: p of the shares of runs that learned, after Holm's correction; None if accuracies
            are a matter of degree.
        steps: the plan's second outcome; None if it has none.
    """

    arm: ArmLogs
    against: ArmLogs
    comparison: ArmComparison
    p_adjusted: float
    verdict: Verdict
    areas: Areas | None = None
    learned_p: float | None = None
    steps: Steps | None = None

    def said(self, alpha: float) -> str:
        """The verdict's sentence, and that of the second outcome."""
        if self.steps is None:
            return self.verdict.sentence
        return f"{self.verdict.sentence} {self.steps.sentence(alpha)}"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a control shows about one possible claim.

    Attributes:
        holds: whether the claim is supported.
        sentence: the reason.
    """

    holds: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All conclusions about a study.

    Attributes:
        compared: comparisons of treatments and controls with the baseline; empty without a verdict.
        controlled: comparisons of each treatment with each control.
        untaught: comparisons of each control with each arm that has no teacher.
        trust: what the controls show.
        headline: the result in one or two sentences.
        state: `found` if a treatment is better and no control explains it, `doubtful` if a control
            does, `none` if no treatment is better, `open` without a verdict.
    """

    compared: tuple[Compared, ...] = ()
    controlled: tuple[Compared, ...] = ()
    untaught: tuple[Compared, ...] = ()
    trust: tuple[Trust, ...] = ()
    headline: str
    state: str

    def of(self, arm: ArmLogs) -> Compared | None:
        """The comparison of an arm with the baseline, if there is one."""
        return next((one for one in self.compared if one.arm is arm), None)


def is_better(one: Compared) -> bool:
    """Whether the verdict is exactly "better"."""
    return one.verdict.kind == "better"


def explained(arm: ArmLogs, controlled: Sequence[Compared]) -> list[ArmLogs]:
    """The controls that a treatment is not shown to beat."""
    return [one.against for one in controlled if one.arm is arm and not is_better(one)]
