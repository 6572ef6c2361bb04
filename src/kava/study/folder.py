"""The folder of a study: its plan, locked before the first run, and what each run left.

plan.yaml, plan.lock.json           the plan as it was given, and as it was understood
runs/ARM/seed-S/metrics.jsonl       what was logged while training
runs/ARM/seed-S/items.jsonl         every answer of the test
runs/ARM/seed-S/alignment.json      which layers, heads and tokens of the teacher are read
runs/ARM/seed-S/calibration.json    how well the maps fit, where they were fitted
runs/ARM/seed-S/result.json         written last: a run without it is not finished
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kava.files.write import write_all
from kava.inputs import Malformed, read_json, whole_json_lines
from kava.study.plan import Plan, canonical_hash
from kava.study.plan_file import read_plan

PLAN_FILE = "plan.yaml"
LOCK_FILE = "plan.lock.json"
RUNS_FOLDER = "runs"
METRICS_FILE = "metrics.jsonl"
ITEMS_FILE = "items.jsonl"
ALIGNMENT_FILE = "alignment.json"
CALIBRATION_FILE = "calibration.json"
RESULT_FILE = "result.json"
SETTINGS_FILE = "settings.json"
LOG_FILE = "log.txt"
OTHER_FOLDER = "take another --output_dir"
"""What to do where a folder is of another study."""

RECORDED = (METRICS_FILE, ITEMS_FILE, ALIGNMENT_FILE, CALIBRATION_FILE)
"""The files whose hashes a result names, where a run has them."""


def default_folder(plan: Plan) -> Path:
    """Where a study goes when nothing else is asked for."""
    return Path("outputs/study") / plan.name


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """The folder of one run."""
    return folder / RUNS_FOLDER / arm / f"seed-{seed}"


def lock_plan(
    folder: Path, plan: Plan, source: str, command: str, mend: str = OTHER_FOLDER
) -> None:
    """Write the plan down before the first run, or check that it is the one that is there.

    Args:
        folder: of the study; made where it is not there.
        plan: the plan.
        source: the text of its file.
        command: how the study was started.
        mend: what to do where it is another.

    Raises:
        ValueError: the folder holds another plan's study.
        OSError: it cannot be written.
    """
    from kava.student.checkpoint import library_versions

    path = folder / LOCK_FILE
    if path.is_file():
        theirs = read_lock(folder)["plan"]
        apart = ", ".join(_differing(theirs, plan.canonical()))
        if apart:
            raise ValueError(
                f"{folder} holds a study with another plan ({apart}): a plan is not changed after "
                f"its first run; {mend}"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = {
        "plan": plan.canonical(),
        "plan_hash": plan.hash,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "command": command,
    }
    text = json.dumps(lock, indent=2, ensure_ascii=False) + "\n"
    write_all({folder / PLAN_FILE: source, path: text})


def _differing(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """The places at which two plans differ: value then, value now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from _differing(then.get(key), now.get(key), f"{where}.{key}".lstrip("."))
    elif then != now:
        yield f"{where} {then!s:.40}, now {now!s:.40}"


def read_lock(folder: Path) -> dict[str, Any]:
    """What was locked.

    Raises:
        ValueError: no study, or a lock that was cut or edited.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no study: it has no {LOCK_FILE}; name the folder that kava study run "
            f"wrote"
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


def read_locked_plan(folder: Path) -> Plan:
    """The plan of a study that was begun.

    Raises:
        ValueError: as `read_lock`.
    """
    return read_plan(read_lock(folder)["plan"])


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a run's result says, of one that failed too; None where there is none.

    Raises:
        ValueError: the file is no JSON, which no run leaves behind.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = read_json(path)
    except Malformed as error:
        raise ValueError(
            f"{path} is cut or damaged ({error.problem}); remove it to do the run again"
        ) from error
    return result


def metric_lines(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged so far; half a line at the end of a run that was killed is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    return whole_json_lines(path)
