"""The folder of a study: its plan, locked before the first run, and the files of each run.

plan.yaml, plan.lock.json           the plan as given, and as parsed
runs/ARM/seed-S/metrics.jsonl       the log of training
runs/ARM/seed-S/items.jsonl         every answer of the test
runs/ARM/seed-S/alignment.json      the teacher layers, heads and tokens that are matched
runs/ARM/seed-S/calibration.json    how well fitted maps fit
runs/ARM/seed-S/result.json         written last: a run without it is not finished
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kava.inputs import Malformed, read_json, whole_json_lines
from kava.study import lock
from kava.study.plan import Plan
from kava.study.plan_file import read_plan

PLAN_FILE = "plan.yaml"
LOCK_FILE = "plan.lock.json"
DEFAULTS = 2
"""In a lock: which defaults of `kava train` its runs have. Locks without it are from before latents
that a frozen teacher teaches were trained to be read (`--text_ce_weight`)."""
RUNS_FOLDER = "runs"
METRICS_FILE = "metrics.jsonl"
ITEMS_FILE = "items.jsonl"
ALIGNMENT_FILE = "alignment.json"
CALIBRATION_FILE = "calibration.json"
RESULT_FILE = "result.json"
SETTINGS_FILE = "settings.json"
LOG_FILE = "log.txt"
OTHER_FOLDER = "take another --output_dir"
"""Advice in messages if a folder belongs to another study."""

RECORDED = (METRICS_FILE, ITEMS_FILE, ALIGNMENT_FILE, CALIBRATION_FILE)
"""The files whose hashes a result records, if a run has them."""


def default_folder(plan: Plan) -> Path:
    """The default folder of a study."""
    return Path("outputs/study") / plan.name


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """The folder of one run."""
    return folder / RUNS_FOLDER / arm / f"seed-{seed}"


def lock_plan(
    folder: Path, plan: Plan, source: str, command: str, mend: str = OTHER_FOLDER
) -> None:
    """Write the plan before the first run, or check that it equals the one in the folder.

    Args:
        folder: the study's folder; created if missing.
        plan: the plan.
        source: the text of the plan's file.
        command: the command line that started the study.
        mend: advice for the message if the folder holds another plan.

    Raises:
        ValueError: the folder holds a study with another plan.
        OSError: it cannot be written.
    """
    lock.write_lock(
        folder / LOCK_FILE,
        plan.canonical(),
        command,
        beside={folder / PLAN_FILE: source},
        what="study",
        mend=mend,
        defaults=DEFAULTS,
    )


def defaults_of(folder: Path) -> dict[str, Any]:
    """Settings that are left out of a plan, where an earlier version began the study and its
    defaults were others; empty of a study of today's, and of one that is not begun."""
    path = folder / LOCK_FILE
    if not path.is_file() or "defaults" in read_json(path):
        return {}
    from kava.train.defaults import BEFORE

    return {"text_ce_weight": BEFORE["text_ce_weight"]}


def read_lock(folder: Path) -> dict[str, Any]:
    """Read the locked plan and its metadata.

    Raises:
        ValueError: no study, or a lock that was truncated or edited.
    """
    return lock.read_lock(folder / LOCK_FILE, "study")


def read_locked_plan(folder: Path) -> Plan:
    """The plan of a study that was started.

    Raises:
        ValueError: as `read_lock`.
    """
    return read_plan(read_lock(folder)["plan"])


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run, also of a failed one; None if there is none.

    Raises:
        ValueError: the file is not JSON, which no run writes.
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
    """The rows that a run has logged so far, without an incomplete last line."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    return whole_json_lines(path)
