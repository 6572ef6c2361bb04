"""The record of a study's jobs, in its folder: which were submitted, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kava.cluster.options import ENGINES
from kava.cluster.schedulers import FOLDER, Submission
from kava.inputs import Malformed, read_json
from kava.study.results import write_json

RECORD = "jobs.json"


def read_record(folder: Path) -> list[Submission]:
    """The submissions of a study, the newest last; none if there were none.

    Args:
        folder: of the study.

    Raises:
        ValueError: the record was truncated or edited.
    """
    path = folder / FOLDER / RECORD
    if not path.is_file():
        return []
    try:
        found: list[dict[str, Any]] = read_json(path)["submissions"]
        return [_submission(one) for one in found]
    except (Malformed, KeyError, TypeError, ValueError) as error:
        reason = error.problem if isinstance(error, Malformed) else error
        reason = f"it lacks {error}" if isinstance(error, KeyError) else reason
        raise ValueError(
            f"{path} is cut or damaged ({reason}): remove it; the jobs go on without it"
        ) from error


def _submission(said: dict[str, Any]) -> Submission:
    tasks = tuple((str(arm), int(seed)) for arm, seed in said["tasks"])
    one = Submission(**{**said, "tasks": tasks})
    if one.engine not in ENGINES:
        raise ValueError(f"there is no engine {one.engine!r}")
    for name, id in (("runs", one.runs), ("report", one.report)):
        if not isinstance(id, str) or (one.engine == "local" and id and not id.isdigit()):
            raise ValueError(f"{name} {id!r} is no id of {one.engine}")
    return one


def last_submission(folder: Path) -> Submission:
    """The newest submission of a study.

    Raises:
        ValueError: there was none.
    """
    record = read_record(folder)
    if not record:
        raise ValueError(
            f"{folder} holds no submitted study: name the folder that kava cluster submit wrote"
        )
    return record[-1]


def write_record(folder: Path, submissions: list[Submission]) -> None:
    """Write the record, whole or not at all."""
    write_json(folder / FOLDER / RECORD, {"submissions": [one._asdict() for one in submissions]})
