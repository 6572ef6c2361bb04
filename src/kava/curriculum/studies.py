"""A curriculum's phases as plans of studies: what a phase runs, and what would compare it.

A stage is run as a study of two arms that describes without a verdict: the student as the stage
finds it, and as it leaves it. Whether a phase teaches more than going on with the phase before is a
question for a study of several seeds, whose plan `comparison_of` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kava.curriculum.plan import Curriculum, Phase, Stage
from kava.study.plan import Arm, Plan, Primary

BEFORE = "before"
"""The arm of the student as a stage finds it."""

NUM_SEEDS = 5
"""Of the study of a phase, where no seeds are named."""


def stage_plan(curriculum: Curriculum, stage: Stage) -> Plan:
    """The plan by which a stage is run.

    Example:
        >>> [arm.name for arm in stage_plan(curriculum, stage).arms]
        ['before', 'dual_prompt']
    """
    watched: dict[str, Any] = {"eval_first": True}
    if stage.phase.name == "samples":
        watched["eval_train_size"] = stage.data.curve_items
    return Plan(
        name=f"{curriculum.name}-{stage.slug}",
        question=f"What does {stage.label} add?",
        base={**watched, **stage.settings},
        data=stage.data,
        budget=stage.budget,
        seeds=(curriculum.seed,),
        arms=(
            Arm(name=BEFORE, what="the student that it finds", role="reference", trained=False),
            Arm(name=stage.arm, what=stage.phase.what, role="baseline"),
        ),
        primary=Primary(test="none"),
    )


def comparison_of(
    curriculum: Curriculum,
    phase: Phase,
    *,
    start: Path | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """The plan of a study that holds a phase against going on as before.

    All arms start from the same student and see the data of the phase. The baseline has the
    settings of the phase before, or of the base alone before the first; every stage with other
    settings is a treatment, and the last one's target of another sample the control.

    Args:
        curriculum: the curriculum.
        phase: one of its phases.
        start: the student that the phase starts from; None: the model of the base.
        seeds: of the study; None: `NUM_SEEDS` from the curriculum's on.

    Raises:
        ValueError: the phase differs from the one before in its data alone.
    """
    stages = curriculum.stages_of(phase)
    earlier = [stage for stage in curriculum.stages() if stage.phase.number < phase.number]
    baseline = earlier[-1].settings if earlier else curriculum.settings({})
    told = f"as {earlier[-1].label}" if earlier else "the base alone"
    last = stages[-1]
    treatments = [stage for stage in stages if stage.settings != baseline]
    if not treatments:
        raise ValueError(
            f"phase {phase.name} differs from the one before it in its data alone, which all arms "
            f"of a study share: no study compares the two"
        )
    base = dict(curriculum.base)
    if start is not None:
        base["start_from"] = str(start)
    arms = [
        Arm(name=BEFORE, what=told, role="baseline", changes=_beyond(curriculum, baseline)),
        *(
            Arm(
                name=stage.arm,
                what=phase.what,
                role="treatment",
                changes=_beyond(curriculum, stage.settings),
            )
            for stage in treatments
        ),
        Arm(
            name="wrong_sample",
            what=f"as {last.arm}, another sample's cache",
            role="control",
            changes={**_beyond(curriculum, last.settings), "wrong_sample": True},
        ),
        Arm(name="start", what="the student that all start from", role="reference", trained=False),
    ]
    first = curriculum.seed
    return Plan(
        name=f"{curriculum.name}-{phase.number}-{phase.name}",
        question=f"What does phase {phase.number} ({phase.what}) add to going on as before?",
        base=base,
        data=last.data,
        budget=last.budget,
        seeds=tuple(range(first, first + NUM_SEEDS) if seeds is None else seeds),
        arms=tuple(arms),
        primary=Primary(),
    )


def _beyond(curriculum: Curriculum, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where a stage's settings differ from the base."""
    base = curriculum.base
    return {
        key: value
        for key, value in settings.items()
        if (key in base and base[key] != value) or (key not in base and value is not None)
    }
