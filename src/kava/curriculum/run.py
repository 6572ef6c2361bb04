"""Run a curriculum: its stages in their order, each from the student of the last.

A stage that is finished is kept; one that was cut goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from kava.curriculum.checks import check_chains
from kava.curriculum.folder import (
    lock_curriculum,
    stage_folder,
    student_folder,
    write_summary,
)
from kava.curriculum.plan import Curriculum, Stage
from kava.curriculum.studies import stage_plan
from kava.curriculum.summary import Added, added_by
from kava.data.sources import is_local
from kava.errors import KavaError
from kava.files.locks import lock_folder
from kava.jobs.fingerprint import fingerprint_of
from kava.stopping import Stopped
from kava.student.checkpoint import find_student
from kava.study.inputs import check_inputs, check_local_models
from kava.study.plan import DataPlan, Plan
from kava.study.run import StudyRun
from kava.study.runner import run_study
from kava.study.settings import train_config
from kava.train.data import read_data
from kava.train.teacher_names import split_label

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


@dataclass(frozen=True)
class StageRun(StudyRun):
    """A run of a study whose student starts from that of the stage before.

    Args:
        start: folder of that student; None: the model of the settings.
    """

    start: Path | None = None

    @cached_property
    def config(self) -> TrainConfig:
        """The configuration of the training."""
        config = train_config(self.plan, self.arm, self.seed, self.folder)
        return config if self.start is None else replace(config, start_from=str(self.start))


def check_curriculum_inputs(curriculum: Curriculum, stages: Sequence[Stage], path: Path) -> None:
    """Look at the models and data of all stages before the first one runs.

    Args:
        curriculum: the plan.
        stages: those that will be run.
        path: the plan's file, for messages.

    Raises:
        OSError, ValueError: the first model or data set on this machine that a stage cannot use.
    """
    seen: list[DataPlan] = []
    for stage in stages:
        plan = stage_plan(curriculum, stage)
        config = train_config(plan, plan.baseline, curriculum.seed, "outputs/curriculum")
        where = f"{path}: {stage.label}"
        if stage.data not in seen:
            check_inputs(plan, [plan.baseline], Path(where))
            seen.append(stage.data)
        try:
            check_local_models(config)
            if stage.phase.name == "samples" and all(
                is_local(name) for name in (stage.data.train, stage.data.test)
            ):
                check_chains(*read_data(config))
        except (OSError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from error


def run_curriculum(
    curriculum: Curriculum,
    folder: Path,
    *,
    source: str,
    command: str,
    until: str | None = None,
    say: Callable[[str], None] = print,
) -> list[Added]:
    """Lock the plan, and run the stages that are not finished, in their order.

    Args:
        curriculum: the plan.
        folder: of the curriculum.
        source: the text of the plan's file.
        command: the command line that started it.
        until: the last phase to run; None: all.
        say: takes a line for each stage.

    Returns:
        What each stage added.

    Raises:
        ValueError: a folder with another plan, or with stages of other settings or libraries.
        KavaError: a stage failed, or another run is at work in the folder.
        Stopped: a signal came; the stage at work has saved a checkpoint if it could.
    """
    stages = curriculum.stages(until)
    added: list[Added] = []
    start: Path | None = None
    with lock_folder(folder, "kava curriculum run"):
        lock_curriculum(folder, curriculum, source, command)
        for place, stage in enumerate(stages, start=1):
            say(f"{stage.label} ({place} of {len(stages)}): {stage.phase.what}")
            plan, home = stage_plan(curriculum, stage), stage_folder(folder, stage)
            runs = _runs(curriculum, plan, home, start)
            text = yaml.safe_dump(plan.canonical(), sort_keys=False, allow_unicode=True)
            try:
                outcome = run_study(plan, home, runs, source=text, command=command, num_jobs=1)
            except Stopped as stop:
                stop.advice = f"{stage.label} was at work; the same command goes on"
                raise
            if outcome.failed:
                (reason, *_) = outcome.failed.values()
                raise KavaError(f"{stage.label}: {reason}; earlier stages are kept")
            found = added_by(folder, curriculum, stage)
            assert found is not None
            added.append(found)
            write_summary(folder, [one.as_json() for one in added])
            start = find_student(student_folder(folder, curriculum, stage))
    return added


def _runs(curriculum: Curriculum, plan: Plan, home: Path, start: Path | None) -> list[StageRun]:
    settings = plan.base
    prints = fingerprint_of(
        settings.get("model_name", "kava/shell-teacher"),
        settings.get("teacher_name"),
        [split_label(name)[1] for name in settings.get("teachers") or ()],
        None if start is None else str(start),
        settings.get("teacher_reasoning") or (),
    )
    return [StageRun(plan, arm, curriculum.seed, home, prints, start) for arm in plan.arms]
