"""What a report compares and concludes, as data."""

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
    """An arm held against another.

    Attributes:
        arm: the one.
        against: the other.
        comparison: of their right answers.
        p_adjusted: Holm's, over the family that this comparison belongs to.
        verdict: what that carries.
        areas: of their learning curves; None where one of them has none.
        learned_p: Holm's p of the shares of runs that learned, over the family; None where
            accuracies are a matter of degree.
        steps: the plan's second outcome; None where it has none.
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
    """What a control says about one thing that could be believed.

    Attributes:
        holds: whether it may be.
        sentence: why.
    """

    holds: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All that is said of a study.

    Attributes:
        compared: treatments and controls against the baseline; empty without a verdict.
        controlled: each treatment against each control.
        untaught: each control against each arm that has no teacher.
        trust: what the controls say.
        headline: the result in a sentence or two.
        state: `found` where a treatment is better and its control does not explain it, `doubtful`
            where a control does, `none` where no treatment is better, `open` without a verdict.
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
    """Whether the verdict is "better", and no other word."""
    return one.verdict.kind == "better"


def explained(arm: ArmLogs, controlled: Sequence[Compared]) -> list[ArmLogs]:
    """The controls that a treatment is not shown to be better than."""
    return [one.against for one in controlled if one.arm is arm and not is_better(one)]
