"""Draw verdicts from a study's logs, and check them with its control.

Every treatment and every control is compared with the baseline, with Holm's correction over all of
them and over the plan's outcomes. The control then tests whether a cache of the wrong sample
teaches as well as the right one, or better than no teacher. If so, a gain is no evidence about the
sample's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kava.report import words
from kava.report.areas import compare_areas
from kava.report.judgement import Compared, Judgement, Trust, explained, is_better
from kava.report.logs import ArmLogs, StudyLogs
from kava.report.outcomes import Steps, compare_all_steps


def judge(study: StudyLogs) -> Judgement:
    """Draw the verdicts of a study, or give the reason why there are none.

    Raises:
        ValueError: fewer than two seeds.

    Example:
        >>> judge(load_study("outputs/study/flat_vs_structured")).headline
    """
    if not study.is_complete or study.plan.primary.test == "none":
        return Judgement(headline=words.open_sentence(study), state="open")
    treatments, controls = study.of_role("treatment"), study.of_role("control")
    baseline = study.baseline
    pairs = [(arm, baseline) for arm in (*treatments, *controls)]
    compared = _family(study, pairs, against_baseline=True)
    taught = [arm for arm in treatments if has_teacher(arm)]
    controlled = _family(study, [(arm, control) for arm in taught for control in controls])
    untaught = _family(
        study,
        [(control, arm) for control in controls for arm in study.arms if is_untaught(arm, study)],
    )
    trust = trust_of(compared, controlled, untaught)
    better = [one for one in compared if is_better(one) and one.arm.role == "treatment"]
    carried = [one for one in better if not explained(one.arm, controlled)]
    state = "found" if carried else "doubtful" if better else "none"
    return Judgement(
        compared=compared,
        controlled=controlled,
        untaught=untaught,
        trust=trust,
        headline=words.headline_of(study, compared, controlled),
        state=state,
    )


def has_teacher(arm: ArmLogs) -> bool:
    """Whether an arm's runs match a cache or a hidden state of a teacher, by their logs."""
    return any(
        any(run.curve(name)[1]) for run in arm.finished for name in ("kv", "eval_kv", "codi")
    )


def is_untaught(arm: ArmLogs, study: StudyLogs) -> bool:
    """Whether an arm was trained with every seed and without a teacher; references count too."""
    complete = len(arm.finished) == len(study.plan.seeds_of(arm.arm))
    return arm.arm.trained and arm.role != "control" and complete and not has_teacher(arm)


def trust_of(
    compared: Sequence[Compared], controlled: Sequence[Compared], untaught: Sequence[Compared]
) -> tuple[Trust, ...]:
    """What the controls show, doubts first.

    A doubt is about a gain: if no treatment with a teacher is better than the baseline, there is no
    doubt to report, and the controls appear only in the tables.
    """
    taught = {one.arm.name for one in controlled}
    gained = {
        one.arm.name
        for one in compared
        if one.arm.role == "treatment" and one.arm.name in taught and is_better(one)
    }
    said = []
    for one in untaught:
        if gained and is_better(one):
            said.append(Trust(holds=False, sentence=words.control_teaches(one)))
    for one in compared:
        teaches = one.arm.role == "control" and has_teacher(one.against) and is_better(one)
        if gained and teaches:
            said.append(Trust(holds=False, sentence=words.control_beats_baseline(one)))
    for one in controlled:
        if is_better(one):
            said.append(Trust(holds=True, sentence=words.control_is_beaten(one)))
        elif one.arm.name in gained:
            said.append(Trust(holds=False, sentence=words.control_is_as_good(one)))
    return tuple(sorted(said, key=lambda trust: trust.holds))


def _family(
    study: StudyLogs, pairs: Sequence[tuple[ArmLogs, ArmLogs]], against_baseline: bool = False
) -> tuple[Compared, ...]:
    """Comparisons that are corrected together, with all outcomes of the plan.

    Detectable effects are computed at the level that the smallest p must reach, as before the run;
    intervals are for a single comparison.
    """
    from kava.statistics import compare_arms, holm, verdict

    primary = study.plan.primary
    levels = study.levels
    test: Any = primary.test
    same = [_same_seeds(*pair) for pair in pairs]
    found = []
    for one, other in same:
        right = one.correct_SN, other.correct_SN
        strict = 1 - primary.alpha / len(pairs)
        least = compare_arms(*right, test=test, levels=levels, confidence=strict, num_resamples=0)
        found.append(
            replace(
                compare_arms(*right, test=test, levels=levels, confidence=1 - primary.alpha),
                minimum_detectable=least.minimum_detectable,
            )
        )
    steps = compare_all_steps(study, same) if against_baseline else []
    curves = compare_areas(same, 1 - primary.alpha) if against_baseline else [None] * len(pairs)
    adjusted = holm([one.p for one in found] + [one.p for _, one in steps])
    of_steps: list[Steps | None] = [
        Steps(target=target, found=one, p_adjusted=p)
        for (target, one), p in zip(steps, adjusted[len(found) :])
    ]
    shares = [one.learned.p for one in found if one.learned is not None]
    of_shares: list[float | None] = [*holm(shares)] if shares else [None] * len(pairs)
    return tuple(
        Compared(
            arm=one,
            against=other,
            comparison=comparison,
            p_adjusted=p,
            verdict=verdict(
                comparison,
                p_adjusted=p,
                minimum_effect=primary.minimum_effect,
                alpha=primary.alpha,
            ),
            areas=curve,
            learned_p=learned_p,
            steps=step,
        )
        for (one, other), comparison, p, curve, learned_p, step in zip(
            pairs, found, adjusted, curves, of_shares, of_steps or [None] * len(pairs)
        )
    )


def _same_seeds(one: ArmLogs, other: ArmLogs) -> tuple[ArmLogs, ArmLogs]:
    """Two arms with the runs of the seeds that both have: an arm may have the first ones alone."""
    num_runs = min(len(one.finished), len(other.finished))
    return one.first(num_runs), other.first(num_runs)
