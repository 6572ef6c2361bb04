"""Learning curves, compared by the area under them: who learns earlier, whatever the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kava.report.kinds import check_same_kind
from kava.report.logs import ArmLogs

CURVE = "eval_accuracy"


@dataclass(frozen=True, kw_only=True)
class Areas:
    """The areas under two arms' curves of accuracy.

    Attributes:
        arm: mean over seeds; 1.0 is right from the first evaluation on.
        against: of the other arm.
        difference: of the two.
        low: lower end of its interval, by a paired t test over seeds.
        high: upper end.
        p: of that test.
        p_adjusted: Holm's, over all areas that are compared.
    """

    arm: float
    against: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float


def areas_of(arm: ArmLogs) -> tuple[float, ...]:
    """The area under each run's curve; empty for an arm that was not evaluated while training."""
    from kava.statistics import area_under_curve

    curves = [run.curve(CURVE) for run in arm.finished]
    if any(len(steps) < 2 for steps, _ in curves):
        return ()
    return tuple(area_under_curve(steps, values) for steps, values in curves)


def compare_areas(
    pairs: Sequence[tuple[ArmLogs, ArmLogs]], confidence: float
) -> list[Areas | None]:
    """Compare the curves of pairs of arms, corrected together.

    Args:
        pairs: an arm, and the one that it is held against, with the same seeds.
        confidence: of the intervals.

    Returns:
        None for a pair that was not evaluated at the same steps, or not at all.
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
        if max(differences) - min(differences) < 1e-12:  # no spread, no t
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
