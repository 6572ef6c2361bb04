"""The folder of a curriculum: its plan, locked before the first run, and a study for each stage.

curriculum.yaml, curriculum.lock.json   the plan as given, and as parsed
phases/1-dual_prompt/                   a study of two arms: before the stage, and after it
phases/4-routing-fixed/                 of a phase with stages, one for each
summary.json                            what each finished stage added
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kava.curriculum.plan import Curriculum, Stage
from kava.files.write import write_all, write_whole
from kava.inputs import Malformed, read_json
from kava.study.folder import differing, run_folder
from kava.study.plan import canonical_hash

PLAN_FILE = "curriculum.yaml"
LOCK_FILE = "curriculum.lock.json"
SUMMARY_FILE = "summary.json"
PHASES_FOLDER = "phases"
OTHER_FOLDER = "take another --output_dir"


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
    from kava.student.checkpoint import library_versions

    path = folder / LOCK_FILE
    if path.is_file():
        theirs = read_lock(folder)["plan"]
        apart = ", ".join(differing(theirs, curriculum.canonical()))
        if apart:
            raise ValueError(
                f"{folder} holds a curriculum with another plan ({apart}): a plan is not changed "
                f"after its first run; {OTHER_FOLDER}"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = {
        "plan": curriculum.canonical(),
        "plan_hash": curriculum.hash,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "command": command,
    }
    text = json.dumps(lock, indent=2, ensure_ascii=False) + "\n"
    write_all({folder / PLAN_FILE: source, path: text})


def read_lock(folder: Path) -> dict[str, Any]:
    """Read the locked plan and what stands beside it.

    Raises:
        ValueError: no curriculum, or a lock that was truncated or edited.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no curriculum: it has no {LOCK_FILE}; name the folder that kava "
            f"curriculum run wrote"
        )
    try:
        lock: dict[str, Any] = read_json(path)
        changed = canonical_hash(lock["plan"]) != lock["plan_hash"]
    except (Malformed, KeyError, TypeError) as error:
        reason = error.problem if isinstance(error, Malformed) else error
        raise ValueError(f"{path} is cut or damaged ({reason}); restore it") from error
    if changed:
        raise ValueError(
            f"{path} was edited after it was written: its hash does not fit; restore it"
        )
    return lock


def write_summary(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write what the finished stages added."""
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / SUMMARY_FILE, text)
