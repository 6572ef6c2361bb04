"""The folder of a curriculum: its plan, locked before the first run, and a study for each stage.

curriculum.yaml, curriculum.lock.json   the plan as given, and as parsed
phases/1-dual_prompt/                   a study of two arms: before the stage, and after it
phases/4-routing-fixed/                 of a phase with stages, one for each
summary.json                            what each finished stage added
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kava.curriculum.plan import Curriculum, Stage
from kava.files.write import write_whole
from kava.study import lock
from kava.study.folder import OTHER_FOLDER, run_folder

PLAN_FILE = "curriculum.yaml"
LOCK_FILE = "curriculum.lock.json"
SUMMARY_FILE = "summary.json"
PHASES_FOLDER = "phases"


def default_folder(curriculum: Curriculum) -> Path:
    """The default folder of a curriculum."""
    return Path("outputs/curriculum") / curriculum.name


def stage_folder(folder: Path, stage: Stage) -> Path:
    """The folder of a stage, which is that of a study."""
    return folder / PHASES_FOLDER / stage.slug


def student_folder(folder: Path, curriculum: Curriculum, stage: Stage) -> Path:
    """The folder with the checkpoints of the student that a stage trains."""
    return run_folder(stage_folder(folder, stage), stage.arm, curriculum.seed)


def lock_curriculum(folder: Path, curriculum: Curriculum, source: str, command: str) -> None:
    """Write the plan before the first run, or check that it equals the one in the folder.

    Args:
        folder: the curriculum's; created if missing.
        curriculum: the plan.
        source: the text of its file.
        command: the command line that started it.

    Raises:
        ValueError: the folder holds another curriculum.
        OSError: it cannot be written.
    """
    lock.write_lock(
        folder / LOCK_FILE,
        curriculum.canonical(),
        command,
        beside={folder / PLAN_FILE: source},
        what="curriculum",
        mend=OTHER_FOLDER,
    )


def read_lock(folder: Path) -> dict[str, Any]:
    """Read the locked plan and what stands beside it.

    Raises:
        ValueError: no curriculum, or a lock that was truncated or edited.
    """
    return lock.read_lock(folder / LOCK_FILE, "curriculum")


def write_summary(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write what the finished stages added."""
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / SUMMARY_FILE, text)
