"""Tables of the outcomes beside the accuracy: runs that learned, and steps to a target."""

from __future__ import annotations

from kava.format import NOTHING, p_text, percents, point_interval
from kava.report.judgement import Judgement
from kava.report.logs import StudyLogs
from kava.report.outcomes import reached_text
from kava.report.tables import Cell, Row, Table, arm_cell, make_table


def learned_table(study: StudyLogs, judgement: Judgement) -> Table | None:
    """How many runs of each arm learned; None where accuracies are a matter of degree."""
    from kava.statistics.learned import learned_interval

    levels, confidence = study.levels, 1 - study.plan.primary.alpha
    if not levels.are_two:
        return None
    rows: list[Row] = []
    for arm in study.arms:
        if not arm.finished or not arm.arm.trained:
            continue
        count, total = sum(a >= levels.threshold for a in arm.accuracies), len(arm.finished)
        one = judgement.of(arm)
        found = one.comparison.learned if one else None
        rows.append(
            [
                arm_cell(arm, ""),
                Cell(
                    f"{count} of {total}",
                    percents(*learned_interval(count, total, confidence)),
                    mark="strong",
                ),
                NOTHING if found is None else point_interval(found.low, found.high),
                NOTHING if found is None else p_text(found.p),
                NOTHING if one is None or one.learned_p is None else p_text(one.learned_p),
                NOTHING if found is None else p_text(found.mcnemar_p),
            ]
        )
    note = (
        f"A run has learned that answers at least {100 * levels.threshold:.0f} % right. In "
        f"brackets the exact {confidence:.0%} interval (Clopper and Pearson) of the share of runs "
        f"that learn. Difference: interval of the difference to the baseline's share, in points, "
        f"and p of equal shares, by the exact unconditional test (Barnard), which takes the runs "
        f"of two arms as independent; Holm over these rows. McNemar: exact test of the runs "
        f"paired by seed, not adjusted; of five seeds it is never below 0.0625."
    )
    head = ("arm", "runs that learned", "difference", "p", "p by Holm", "McNemar's p")
    return make_table("learned", "Runs that learned", head, rows, note)


def steps_table(study: StudyLogs, judgement: Judgement) -> Table | None:
    """Steps to the target of the plan's second outcome; None where it has none."""
    rows: list[Row] = []
    target = 0.0
    for one in judgement.compared:
        if one.steps is None:
            return None
        found, target = one.steps.found, one.steps.target
        rows.append(
            [
                arm_cell(one.arm, ""),
                Cell(
                    " ".join(
                        f"{run.step:,}" if run.reached else f">{run.step:,}"
                        for run in found.treatment
                    ),
                    reached_text(found.treatment),
                    mark="seeds",
                ),
                f"{found.mean_treatment:,.0f}",
                f"{found.mean_baseline:,.0f}",
                f"{found.difference:+,.0f}".replace("-", "−"),
                p_text(one.steps.p_adjusted),
                one.steps.word(study.plan.primary.alpha),
            ]
        )
    if not rows:
        return None
    note = (
        f"The first evaluation while training that reaches {100 * target:.1f} % right, which is "
        f"{100 * (study.plan.primary.steps_to or 0):.0f} % of the highest accuracy that a compared "
        f"run ends with there. >: never reached, censored at the last step. Mean: restricted to "
        f"the length of the runs. p: log-rank statistic, over all divisions of the runs between "
        f"the two arms; adjusted by Holm together with the accuracies."
    )
    head = ("arm", "steps by seed", "mean", "baseline's", "difference", "p", "verdict")
    return make_table("steps", "Steps to the target", head, rows, note)
