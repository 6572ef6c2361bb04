"""Compare learning curves by the area under them, which shows which arm learns earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kava.report.kinds import check_same_kind
from kava.report.logs import ArmLogs

CURVE = "eval_accuracy"


@dataclass(frozen=True, kw_only=True)
class Areas:
    """The areas under the accuracy curves of two arms.

    Attributes:
        arm: mean over seeds; 1.0 means all answers are right from the first evaluation on.
        against: the same for the other arm.
        difference: arm minus against.
        low: lower end of the difference's interval, by a paired t test over seeds.
        high: upper end.
        p: p-value of that test.
        p_adjusted: p after Holm's correction over all compared areas.
    """

    arm: float
    against: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float


def areas_of(arm: ArmLogs) -> tuple[float, ...]:
    """The area under each run's curve; empty for an arm without evaluations during training."""
    from kava.statistics import area_under_curve

    curves = [run.curve(CURVE) for run in arm.finished]
    if any(len(steps) < 2 for steps, _ in curves):
        return ()
    return tuple(area_under_curve(steps, values) for steps, values in curves)


def compare_areas(
    pairs: Sequence[tuple[ArmLogs, ArmLogs]], confidence: float
) -> list[Areas | None]:
    """Compare the curves of pairs of arms, with Holm's correction over all pairs.

    Args:
        pairs: an arm and the one it is compared with, with the same seeds.
        confidence: confidence level of the intervals.

    Returns:
        None for a pair that was not evaluated at the same steps or not at all.
    """
    from scipy import stats

    from kava.statistics import holm

    found: list[tuple[float, float, float, float, float] | None] = []
    for one, other in pairs:
        check_same_kind(CURVE, one, other)
        if not _same_steps(one, other):
            found.append(None)
            continue
        areas, against = areas_of(one), areas_of(other)
        means = sum(areas) / len(areas), sum(against) / len(against)
        differences = [a - b for a, b in zip(areas, against)]
        if max(differences) - min(differences) < 1e-12:  # without spread there is no t statistic
            found.append((*means, differences[0], differences[0], 1.0))
            continue
        test = stats.ttest_rel(areas, against)
        low, high = test.confidence_interval(confidence)
        found.append((*means, float(low), float(high), float(test.pvalue)))
    adjusted = iter(holm([one[-1] for one in found if one is not None]))
    return [
        None
        if one is None
        else Areas(
            arm=one[0],
            against=one[1],
            difference=one[0] - one[1],
            low=one[2],
            high=one[3],
            p=one[4],
            p_adjusted=next(adjusted),
        )
        for one in found
    ]


def _same_steps(one: ArmLogs, other: ArmLogs) -> bool:
    steps = {tuple(run.curve(CURVE)[0]) for arm in (one, other) for run in arm.finished}
    return len(steps) == 1 and len(steps.pop()) > 1
