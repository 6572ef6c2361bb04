"""The outcomes beside the accuracy: how many runs learned, and how soon they reached a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kava.format import counted, listed, p_clause
from kava.report.areas import CURVE
from kava.report.logs import ArmLogs, StudyLogs
from kava.statistics.steps import Reached, StepsComparison, compare_steps, steps_to


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of two arms to a share of the final accuracy.

    Attributes:
        target: accuracy that is to be reached.
        found: the two arms compared.
        p_adjusted: Holm's, together with the accuracies of the study.
    """

    target: float
    found: StepsComparison
    p_adjusted: float

    def word(self, alpha: float) -> str:
        """Whether the arm is earlier or later, or it is undecided."""
        if self.p_adjusted >= alpha:
            return "undecided"
        return "earlier" if self.found.difference < 0 else "later"

    def sentence(self, alpha: float) -> str:
        """What the second outcome carries."""
        own, other = self.found.treatment, self.found.baseline
        said = (
            f"{reached_text(own)} reached {100 * self.target:.0f} % while training, after "
            f"{self.found.mean_treatment:,.0f} steps in the mean; of the baseline "
            f"{reached_text(other)}, after {self.found.mean_baseline:,.0f}"
        )
        word = self.word(alpha)
        lead = "Steps: undecided" if word == "undecided" else word.capitalize()
        return f"{lead} ({p_clause(self.p_adjusted)}): {said}."


def reached_text(runs: Sequence[Reached]) -> str:
    """The number of runs that reached the target, out of all: `4 of 5 runs`."""
    return f"{sum(run.reached for run in runs)} of {counted(len(runs), 'run')}"


def compare_all_steps(
    study: StudyLogs, pairs: Sequence[tuple[ArmLogs, ArmLogs]]
) -> list[tuple[float, StepsComparison]]:
    """The targets and comparisons of pairs of arms; empty where the plan asks for none.

    The target is a share of the highest accuracy that a compared run has at its last evaluation.

    Raises:
        ValueError: a run that was not evaluated while training.
    """
    share = study.plan.primary.steps_to
    if share is None or not pairs:
        return []
    curves = {}
    for arm in study.of_role("baseline", "treatment", "control"):
        for run in arm.finished:
            curves[run.name] = run.curve(CURVE)
            if not curves[run.name][0]:
                raise ValueError(
                    f"runs/{run.name} has no {CURVE} in its metrics, from which the plan's "
                    f"steps_to follows; run it with evaluations"
                )
    target = share * max(values[-1] for _, values in curves.values())

    def reached(arm: ArmLogs) -> list[Reached]:
        return [steps_to(*curves[run.name], target) for run in arm.finished]

    return [(target, compare_steps(reached(one), reached(other))) for one, other in pairs]


def learned_sentence(study: StudyLogs) -> str:
    """What counts as a run that learned, and how that was chosen."""
    levels = study.levels
    if not levels.are_two:
        return ""
    how = "as the plan says"
    if study.plan.primary.learned is None:
        how = "half-way between the lowest and the highest of the compared runs"
        if not any(run.accuracy >= levels.threshold for run in study.runs if run.correct):
            how = "since none of the compared runs has a tenth right, half of the scale"
    never = [
        f"`{arm.name}`"
        for arm in study.of_role("baseline", "treatment", "control")
        if arm.finished and max(arm.accuracies) < levels.threshold
    ]
    none = f" No run of {listed(never, 'or')} did." if never else ""
    return (
        f"Runs of this study either learn the task or do not: a run has learned that answers at "
        f"least {100 * levels.threshold:.0f} % right ({how}).{none} Intervals and p count how many "
        f"runs learned, exactly, and the spread of the rest."
    )
