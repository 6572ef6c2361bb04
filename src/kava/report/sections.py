"""The sections of the page in order, with their content, for HTML and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kava.format import listed
from kava.pictures.alignment import head_map_picture, layer_map_picture, time_map_picture
from kava.pictures.drawn import Draw, Picture, draw_picture
from kava.report import accounts, tables, words
from kava.report.judgement import Judgement
from kava.report.logs import StudyLogs
from kava.report.outcome_tables import learned_table, steps_table
from kava.report.outcomes import learned_sentence
from kava.report.pictures import (
    CURVES,
    accuracy_by_arm,
    curves_by_arm,
    differences,
    with_curves,
)
from kava.report.tables import Table, interval_of
from kava.report.teachers import routing_pictures, routing_table


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        name: its id in the page.
        title: its heading.
        text: its paragraphs.
        pictures: its pictures, in order.
        tables: its tables, below the pictures.
        folded: tables that are collapsed at first.
        code: a block of preformatted text.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    code: str = ""


CAPTIONS: Mapping[str, tuple[str, str]] = {
    "reading_curves": (
        "What the answer can be read from",
        "Held-out answers predicted whole: after the written chain of thought, with the target's "
        "keys and values in place of the latents, from the student's own latents, and from another "
        "sample's. A line that stays down is a link that is broken, and it limits those that "
        "follow. An arm without latents has the first and the third alone.",
    ),
    "accuracy_curves": (
        "Right answers while training",
        "On held-out items that are not those of the test. One line a seed; dashed: the mean of "
        "the baseline. An arm that was not trained has no curve.",
    ),
    "ce_curves": (
        "Cross-entropy of the answer",
        "Solid: held-out; dashed: training. One line a seed. Kinds, where the titles name them, "
        "are of different tokens and are not compared.",
    ),
    "kv_curves": (
        "KV loss on held-out samples",
        "Solid: the distance to the sample's own target; dashed: to another sample's. Kinds, where "
        "the titles name them, are measured differently and are not compared.",
    ),
    "gradient_curves": ("Gradient norm", "Before clipping, one line a seed."),
    "cka_curves": (
        "CKA of student and target",
        "Debiased CKA of keys and values between the student's cache and its target, held-out. "
        "Kinds, where the titles name them, are measured differently and are not compared.",
    ),
    "entropy_curves": ("Attention entropy", "Of the student's attention, held-out."),
}
"""Picture → title and caption."""


def sections_of(study: StudyLogs, judgement: Judgement) -> list[Section]:
    """The sections after the verdict, with pictures; sections without content are left out."""
    made = (
        _answers(study, judgement),
        _learning(study, judgement),
        _controls(study, judgement),
        _teachers(study),
        _alignment(study),
        _health(study),
        _budget(study),
        _power(study, judgement),
        _provenance(study),
    )
    return [
        section
        for section in made
        if section.text or section.pictures or section.tables or section.code
    ]


def _answers(study: StudyLogs, judgement: Judgement) -> Section:
    arms = [arm for arm in study.arms if arm.finished]
    if not arms:
        return Section(name="answers", title="Right answers", tables=(accounts.runs_table(study),))
    confidence = 1 - study.plan.primary.alpha
    levels = study.levels
    intervals = {arm.name: interval_of(arm, confidence, levels) for arm in arms}
    drawn = [
        draw_picture(
            "accuracy",
            "Right answers by arm",
            f"Dots: single seeds; those that are alike stand above one another. Bars: "
            f"{confidence:.0%} intervals of the mean, for other runs and other items, of a single "
            f"run for other items alone. Dashed: the mean of the baseline.",
            partial(accuracy_by_arm, arms, intervals, confidence=confidence),
        )
    ]
    if judgement.compared:
        drawn.append(
            draw_picture(
                "differences",
                "Difference to the baseline",
                f"Dots: the two runs of a seed. Bars: {confidence:.0%} intervals. Shaded: "
                f"differences smaller than the plan calls of interest.",
                partial(differences, judgement.compared, study.plan.primary.minimum_effect),
            )
        )
    said, learned = learned_sentence(study), learned_table(study, judgement)
    return Section(
        name="answers",
        title="Right answers",
        pictures=(*_curve(study, "reading_curves"), *drawn),
        text=(said,) if said else (),
        tables=tuple(
            filter(None, (tables.arms_table(study, judgement), learned, tables.steps_table(study)))
        ),
        folded=(*tables.reading_table(study), accounts.runs_table(study)),
    )


def _curve(study: StudyLogs, name: str) -> Iterator[Picture]:
    """The picture of a quantity, if an arm logged it."""
    curves = CURVES[name]
    arms = with_curves(study.arms, curves)
    if arms:
        yield draw_picture(name, *CAPTIONS[name], partial(curves_by_arm, arms, curves))


def _learning(study: StudyLogs, judgement: Judgement) -> Section:
    names = ("accuracy_curves", "ce_curves")
    areas = tables.areas_table(judgement)
    return Section(
        name="learning",
        title="Learning curves",
        pictures=tuple(picture for name in names for picture in _curve(study, name)),
        tables=tuple(table for table in (steps_table(study, judgement), areas) if table),
    )


def _controls(study: StudyLogs, judgement: Judgement) -> Section:
    found = (tables.controls_table(judgement), tables.caches_table(study))
    return Section(
        name="controls",
        title="Controls",
        text=tuple(trust.sentence for trust in judgement.trust),
        pictures=tuple(_curve(study, "kv_curves")),
        tables=tuple(table for table in found if table is not None),
    )


def _teachers(study: StudyLogs) -> Section:
    table = routing_table(study)
    return Section(
        name="teachers",
        title="Which teacher is listened to",
        pictures=tuple(routing_pictures(study)),
        tables=(table,) if table else (),
    )


def _alignment(study: StudyLogs) -> Section:
    """One picture for all arms that read a teacher's layers, heads or tokens in the same way."""
    groups: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for part in ("layers", "heads", "time"):
        for arm in study.arms:
            for run in arm.finished[:1]:
                if run.alignment and run.alignment.get(part):
                    key = f"{part} {json.dumps(run.alignment[part], sort_keys=True)}"
                    groups.setdefault(key, []).append(f"`{arm.name}`")
                    values[key] = run.alignment[part]
    drawn, counts = [], dict.fromkeys(("layers", "heads", "time"), 0)
    for key, arms in groups.items():
        part = key.partition(" ")[0]
        counts[part] += 1
        title, caption, draw = _alignment_picture(part, values[key])
        name = f"{part}_{counts[part]}"
        whose = f"Arms: {listed(arms)}; the map of the first finished seed. {caption}"
        drawn.append(draw_picture(name, title, whose, draw))
    return Section(name="alignment", title="Layers, heads and time", pictures=tuple(drawn))


def _alignment_picture(part: str, value: Any) -> tuple[str, str, Draw]:
    if part == "layers":
        return (
            "Which of the teacher's layers a student's layer is compared with",
            "Each row is a layer of the student; the weights of a row add up to 1.",
            partial(layer_map_picture, value),
        )
    if part == "heads":
        return (
            "Which heads of one cache go into which of the other",
            "How much of the map reads each head: the norm of its block, the largest of a panel "
            "full blue.",
            lambda narrow: head_map_picture(value, ("target", "source"), narrow=narrow),
        )
    return (
        "Which of the teacher's tokens a student's token is compared with",
        f"Above the student's tokens, below the teacher's, of sample {value['sample']}.",
        lambda narrow: time_map_picture(
            value["student"], value["teacher"], value["weights"], narrow=narrow
        ),
    )


def _health(study: StudyLogs) -> Section:
    names = ("gradient_curves", "cka_curves", "entropy_curves")
    return Section(
        name="health",
        title="Health of the runs",
        pictures=tuple(picture for name in names for picture in _curve(study, name)),
        tables=(accounts.health_table(study),),
    )


def _budget(study: StudyLogs) -> Section:
    return Section(
        name="cost",
        title="Budget and cost",
        text=(accounts.budget_sentence(study),),
        tables=(accounts.budget_table(study),),
    )


def _power(study: StudyLogs, judgement: Judgement) -> Section:
    table = tables.tests_table(judgement)
    said = (words.seeds_sentence(study), words.power_sentence(study, judgement.compared))
    return Section(
        name="power",
        title="What the study could have found",
        text=said if table else (),
        tables=(table,) if table else (),
    )


def _provenance(study: StudyLogs) -> Section:
    import yaml

    plan = yaml.safe_dump(study.lock["plan"], sort_keys=False, allow_unicode=True, width=88)
    return Section(
        name="provenance",
        title="Where the numbers come from",
        text=(
            "The plan was written down and hashed before the first run. Every file below had, when "
            "this page was made, the sha256 that its run wrote down.",
        ),
        tables=(accounts.sources_table(study),),
        folded=(accounts.files_table(study),),
        code=plan,
    )
