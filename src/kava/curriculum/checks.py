"""Checks of a curriculum before anything runs: each phase must be what its name says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kava.flags import listed, near
from kava.flags.words import shown
from kava.study.checks import RUN_KEYS
from kava.study.plan import DataPlan

if TYPE_CHECKING:
    from kava.curriculum.plan import Curriculum, Phase, Stage
    from kava.data.records import Record

LOOK_AT_THE_SAMPLE = ("similarity", "confidence", "min_ce", "avg_ce", "oracle", "learnable")
"""Fusions whose weights are others for every sample, as routing ends with."""

MIN_TRAIN, MIN_HELD_OUT = 32, 8
"""The fewest samples of the phase `samples`, of which the gap is reported."""

_NAME = re.compile(r"\w[\w .+-]{0,99}")


def check_curriculum(curriculum: Curriculum) -> None:
    """Check that every phase is there for what its name says, in its order.

    Raises:
        ValueError: the first problem; the message names the phase and the key.
    """
    if not _NAME.fullmatch(curriculum.name) or curriculum.name.endswith((" ", ".")):
        raise ValueError(
            f"name {shown(curriculum.name)} must be usable as the name of a folder: letters, "
            f"digits, spaces, - _ and dots, beginning with a letter or digit"
        )
    numbers = [phase.number for phase in curriculum.phases]
    for earlier, later in zip(curriculum.phases, curriculum.phases[1:]):
        if later.number < earlier.number:
            raise ValueError(
                f"phases: {later.name} is phase {later.number} and stands behind {earlier.name}, "
                f"phase {earlier.number}: write them in their order"
            )
    assert len({*numbers}) == len(numbers)  # keys of a mapping
    for phase in curriculum.phases:
        where = f"phases.{phase.name}"
        _check_keys(phase, where)
        for stage in curriculum.stages_of(phase):
            _CHECKS[phase.name](stage, where)
        if phase.name == "routing":
            _check_stages(curriculum, phase, where)


def _check_keys(phase: Phase, where: str) -> None:
    known = [one.name for one in fields(DataPlan)]
    for key in phase.data:
        if key not in known:
            raise ValueError(f"{where}: data: unknown key {key!r}{near(str(key), known)}")
    if phase.steps is not None and phase.steps < 1:
        raise ValueError(f"{where}: steps {phase.steps} must be at least 1")
    if phase.stages and phase.name != "routing":
        raise ValueError(f"{where}: stages are of routing; this phase is one run")
    for key in (*phase.changes, *(key for own in phase.stages.values() for key in own)):
        if key in RUN_KEYS or key == "start_from":
            raise ValueError(f"{where}: {key} is set by the curriculum; leave it out")


def _models(stage: Stage) -> list[str]:
    teachers: Sequence[Any] = stage.settings.get("teachers") or []
    return [str(name).rpartition("=")[2] for name in teachers]


def _check_dual_prompt(stage: Stage, where: str) -> None:
    prompts = stage.settings.get("teacher_prompts") or []
    if len({*map(str, prompts)}) < 2:
        raise ValueError(
            f"{where}: teacher_prompts must give one teacher two prompts, such as "
            f'["{{question}}\\n", "{{question}} Think step by step.\\n"]'
        )
    if len({*_models(stage)}) != 1:
        raise ValueError(
            f"{where}: teachers must name one model twice, under labels, such as "
            f"[plain=gpt2, steps=gpt2]; other models are phase 3, checkpoints"
        )


def _check_samples(stage: Stage, where: str) -> None:
    """What is to be seen of its data is seen when they are read: `check_chains`."""


def _check_checkpoints(stage: Stage, where: str) -> None:
    if len({*_models(stage)}) < 2:
        raise ValueError(
            f"{where}: teachers must name two models or more, of other checkpoints or families"
        )


def _check_routing(stage: Stage, where: str) -> None:
    if len(stage.settings.get("teachers") or []) < 2:
        raise ValueError(f"{where}: teachers must name two teachers or more to choose among")


def _check_stages(curriculum: Curriculum, phase: Phase, where: str) -> None:
    fusions = [stage.settings.get("fusion", "fixed") for stage in curriculum.stages_of(phase)]
    if fusions[-1] not in LOOK_AT_THE_SAMPLE:
        raise ValueError(
            f"{where}: its last stage must weigh teachers by the sample, and fusion "
            f"{fusions[-1]} does not; choose {listed(LOOK_AT_THE_SAMPLE)}"
        )
    if "fixed" in fusions[1:]:
        raise ValueError(f"{where}: fusion fixed begins, and stands in a later stage")


def _check_shared_space(stage: Stage, where: str) -> None:
    if not stage.settings.get("shared_space_weight"):
        raise ValueError(f"{where}: shared_space_weight must be above 0")


_CHECKS: dict[str, Callable[[Stage, str], None]] = {
    "dual_prompt": _check_dual_prompt,
    "samples": _check_samples,
    "checkpoints": _check_checkpoints,
    "routing": _check_routing,
    "shared_space": _check_shared_space,
}


def check_chains(train: Sequence[Record], held_out: Sequence[Record]) -> tuple[int, int]:
    """Check the data of the phase `samples`: questions with several chains of thought.

    Args:
        train: its training records.
        held_out: those of its evaluations.

    Returns:
        The fewest and the most chains of a training question.

    Raises:
        ValueError: no question has two, or samples are too few for a gap to mean anything.
    """
    from kava.data.splits import samples_per_question

    for what, records, fewest in (
        ("training", train, MIN_TRAIN),
        ("held-out", held_out, MIN_HELD_OUT),
    ):
        if len(records) < fewest:
            raise ValueError(
                f"{len(records)} {what} samples are too few to report a gap: give {fewest} or more"
            )
        counts = samples_per_question(records)
        if max(counts) < 2:
            raise ValueError(
                f"none of the {len(counts):,} {what} questions has two chains of "
                f"thought: repeat questions with other reasonings under ids of their own"
            )
    counts = samples_per_question(train)
    return min(counts), max(counts)
