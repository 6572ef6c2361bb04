"""A curriculum in text: its phases before they run, and a phase as the plan of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from kava.curriculum.folder import student_folder
from kava.curriculum.plan import Curriculum, Phase, Stage
from kava.curriculum.studies import comparison_of
from kava.curriculum.summary import added_by
from kava.flags import listed
from kava.format import columns
from kava.student.checkpoint import find_student
from kava.study.checks import check_plan
from kava.study.settings import check_arms


def plan_table(curriculum: Curriculum, stages: Sequence[Stage]) -> str:
    """The stages of a curriculum, with what each changes.

    Example:
        >>> print(plan_table(curriculum, curriculum.stages()).splitlines()[0])
        shell: What does each phase add …
    """
    rows: list[tuple[str, ...]] = [("phase", "steps", "what", "changes")]
    for stage in stages:
        steps = stage.budget.steps
        length = f"{stage.budget.epochs:g} epochs" if steps is None else f"{steps:,}"
        own = {
            key: value
            for key, value in stage.settings.items()
            if curriculum.base.get(key) != value and value is not None
        }
        changes = ", ".join(f"{key}={value}" for key, value in own.items())
        rows.append((stage.label, length, stage.phase.what, changes))
    data: dict[str, list[str]] = {}
    for stage in stages:
        data.setdefault(stage.data.train, []).append(stage.label)
    return "\n".join(
        [
            f"{curriculum.name}: {curriculum.question}",
            f"plan hash  {curriculum.hash}",
            *(f"data       {name} ({listed(labels)})" for name, labels in data.items()),
            "",
            *columns(rows, left=len(rows[0])),
            "",
            f"{len(stages)} runs, one after the other",
        ]
    )


def comparison_text(
    curriculum: Curriculum, phase: Phase, folder: Path, seeds: Sequence[int] | None = None
) -> str:
    """The plan of the study of a phase as the text of a YAML file.

    Args:
        curriculum: the curriculum.
        phase: one of its phases.
        folder: of the curriculum, which may hold the student that the phase starts from.
        seeds: of the study; None: five.

    Raises:
        ValueError: no study compares the phase, or it would not be accepted.
    """
    earlier = [stage for stage in curriculum.stages() if stage.phase.number < phase.number]
    start: Path | None = None
    note = f"# phase {phase.number} of {curriculum.name} against going on as before it"
    if earlier and added_by(folder, curriculum, earlier[-1]) is not None:
        start = find_student(student_folder(folder, curriculum, earlier[-1]))
    elif earlier:
        note += (
            f"\n# {earlier[-1].label} is not finished in {folder}: the arms start from the base's "
            f"model"
        )
    plan = comparison_of(curriculum, phase, start=start, seeds=seeds)
    check_plan(plan)
    check_arms(plan)
    values = plan.canonical()
    for arm in values["arms"].values():
        if arm["trained"]:
            del arm["trained"]
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return f"{note}\n{text}"
