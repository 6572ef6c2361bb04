"""The sentences of the page. Names of arms are between backticks."""

from __future__ import annotations

from collections.abc import Sequence

from kava.format import counted, listed, p_clause, percent, point_interval, points
from kava.report.judgement import Compared, explained, is_better
from kava.report.logs import RunLogs, StudyLogs
from kava.statistics.verdict import SEEDS_TO_RULE_OUT, unseen_share

MOST_NAMED = 12


def headline_of(
    study: StudyLogs, compared: Sequence[Compared], controlled: Sequence[Compared]
) -> str:
    """The result, and a doubt about it if the control gives one."""
    treatments = [one for one in compared if one.arm.role == "treatment"]
    better = sorted(
        filter(is_better, treatments), key=lambda one: one.comparison.difference, reverse=True
    )
    if not better:
        return _none_is_better(study, treatments)
    best, *others = better
    parts = [f"{_accuracies(best)} {best.verdict.sentence}"]
    if others:
        named = listed(f"`{one.arm.name}` ({points(one.comparison.difference)})" for one in others)
        parts.append(f"Better than `{study.baseline.name}` as well: {named}.")
    for one in better:
        if controls := explained(one.arm, controlled):
            parts.append(
                f"But `{one.arm.name}` is not shown to be better than "
                f"{listed(f'`{control.name}`' for control in controls)}, which learned from the "
                f"caches of other samples: its gain cannot be put down to the sample's own cache."
            )
    return " ".join(parts)


def _none_is_better(study: StudyLogs, treatments: Sequence[Compared]) -> str:
    name = f"`{study.baseline.name}`"
    if not treatments:
        return f"The plan holds no treatment against {name}; only its controls are compared."
    if len(treatments) == 1:
        (one,) = treatments
        return (
            f"`{one.arm.name}` is not shown to be better than {name}. {_accuracies(one)} "
            f"{one.verdict.sentence}"
        )
    kinds = {
        kind: [f"`{one.arm.name}`" for one in treatments if one.verdict.kind == kind]
        for kind in ("no better", "undecided", "worse")
    }
    said = "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)
    return f"None of the {len(treatments)} treatments is shown to be better than {name} ({said})."


def _accuracies(one: Compared) -> str:
    found = one.comparison
    return (
        f"`{one.arm.name}` answers {percent(found.accuracy_treatment)} of the items right, "
        f"`{one.against.name}` {percent(found.accuracy_baseline)}."
    )


def open_sentence(study: StudyLogs) -> str:
    """Why there is no verdict."""
    if study.is_complete:
        return (
            "No verdict: the plan asks for none (`test: none`). The numbers below describe the "
            "runs, and differences between them may be chance."
        )
    planned = [run for run in study.runs if run.state == "finished"]
    total = len(planned) + len(study.unfinished)
    return (
        f"No verdict yet: {len(planned)} of {counted(total, 'run')} are finished. What the "
        f"finished ones show is below; it may change, so nothing is compared."
    )


def missing_sentence(runs: Sequence[RunLogs]) -> str:
    """The missing runs, by their state."""
    said = []
    for state in ("failed", "running", "missing"):
        names = [f"`{run.name}`" for run in runs if run.state == state]
        if len(names) > MOST_NAMED:
            names = [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"]
        if names:
            word = {"running": "begun and not finished", "missing": "not begun"}.get(state, state)
            said.append(f"{word[0].upper()}{word[1:]}: {listed(names)}.")
    said += [
        f"`{run.name}` failed: {' '.join(str(run.result['reason']).split())[:200]}"
        for run in runs
        if run.state == "failed" and run.result.get("reason")
    ]
    return " ".join(said)


def control_teaches(one: Compared) -> str:
    """Sentence: the wrong sample's cache is better than no teacher."""
    return (
        f"The control `{one.arm.name}` learned from the caches of other samples and yet is better "
        f"than `{one.against.name}`, which has no teacher, by {_by(one)}. So a gain over "
        f"`{one.against.name}` does not show that a sample's own cache was needed."
    )


def control_beats_baseline(one: Compared) -> str:
    """Sentence: the wrong sample's cache is better than the baseline."""
    return (
        f"The control `{one.arm.name}` learned from the caches of other samples and yet is better "
        f"than the baseline `{one.against.name}`, by {_by(one)}. So a gain over the baseline does "
        f"not show that a sample's own cache was needed."
    )


def control_is_as_good(one: Compared) -> str:
    """Sentence: a treatment is not shown to be better than the wrong sample's cache."""
    return (
        f"`{one.arm.name}` is not shown to be better than the control `{one.against.name}`, which "
        f"learned from the caches of other samples: the difference is {_by(one)}. What it learned "
        f"cannot be put down to the sample's own cache."
    )


def control_is_beaten(one: Compared) -> str:
    """Sentence: a treatment needs the right sample's cache."""
    return (
        f"`{one.arm.name}` is better than the control `{one.against.name}`, which learned from the "
        f"caches of other samples, by {_by(one)}: what it learned depends on the cache being the "
        f"sample's own."
    )


def _by(one: Compared) -> str:
    found = one.comparison
    return (
        f"{points(found.difference).lstrip('+')} ({found.confidence:.0%} interval "
        f"{point_interval(found.low, found.high)}, {p_clause(one.p_adjusted)})"
    )


def power_sentence(study: StudyLogs, compared: Sequence[Compared]) -> str:
    """The effects that the study could have detected, given the spread of its runs."""
    if study.plan.primary.test == "wilcoxon":
        return "Of a test of ranks, as the plan asks for, no smallest detectable effect is known."
    known = [
        one.comparison.minimum_detectable
        for one in compared
        if one.comparison.minimum_detectable is not None
    ]
    if not known:
        return (
            "The answers of the runs do not vary, so that no smallest detectable effect can be "
            "told."
        )
    seeds = sorted({one.comparison.num_seeds for one in compared})
    found = compared[0].comparison
    least = study.plan.primary.minimum_effect
    most = max(known)
    size = f"{listed(map(str, seeds), 'or')} seeds an arm and {counted(found.num_items, 'item')}"
    span = points(min(most, 1.0)).lstrip("+")
    if min(known) > 1:
        return (
            f"With {size} and runs so far apart, no difference would be found four times in five, "
            f"however large: a missing verdict says nothing."
        )
    if min(known) < most:
        span = f"{points(min(known), unit=False).lstrip('+')} to {span}, depending on the arm"
    enough = (
        f"That is no more than the {points(least).lstrip('+')} that the plan calls of interest."
        if most <= least
        else f"The plan calls {points(least).lstrip('+')} of interest: for smaller differences "
        f"than the study can find, a missing verdict says nothing."
    )
    return (
        f"With {size}, and at the spread of these runs, a true difference of {span} is found four "
        f"times in five, after the correction for several comparisons. {enough}"
    )


def seeds_sentence(study: StudyLogs) -> str:
    """What a test with this number of seeds can and cannot show about other runs."""
    num_seeds = study.plan.fewest_seeds
    if study.plan.primary.test == "items":
        return (
            "The plan's test is over items: it speaks of these very runs, and of other runs of an "
            "arm it says nothing."
        )
    share = f"{100 * unseen_share(num_seeds):.0f} %"
    few = (
        f" With fewer than {SEEDS_TO_RULE_OUT} seeds no gain is called ruled out."
        if num_seeds < SEEDS_TO_RULE_OUT
        else ""
    )
    if study.arms and study.levels.are_two:
        return (
            f"What {counted(num_seeds, 'seed')} can say: how many runs of an arm learn, as exactly "
            f"as so few runs allow. An outcome that none of the {num_seeds} runs of an arm showed "
            f"may still be that of up to {share} of such runs (95 % confidence); the intervals on "
            f"this page count with that.{few}"
        )
    return (
        f"What {counted(num_seeds, 'seed')} can say: whether the mean accuracies differ by more "
        f"than runs of one arm differ among themselves, if runs scatter about their mean as in a "
        f"normal distribution. What they cannot say: how often a run ends otherwise than these "
        f"did. An outcome that none of the {num_seeds} runs of an arm showed may still be that of "
        f"up to {share} of such runs (95 % confidence): a gain that comes with some seeds only can "
        f"be missed altogether, and {num_seeds} runs that agree do not show that every run "
        f"would.{few}"
    )
