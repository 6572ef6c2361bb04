"""A plan locked before its first run: written once, compared later, refused where it was edited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kava.files.write import write_all
from kava.inputs import Malformed, read_json
from kava.study.plan import canonical_hash


def write_lock(
    path: Path,
    plan: Mapping[str, Any],
    command: str,
    *,
    beside: Mapping[Path, str],
    what: str,
    mend: str,
    **more: Any,
) -> None:
    """Write a lock before the first run, or check that it holds the same plan.

    Args:
        path: the lock; its folder is created if missing.
        plan: the plan as JSON values.
        command: the command line that started it.
        beside: file → text, written together with it.
        what: what the folder holds, for messages: a study, a curriculum.
        mend: advice for the message if the folder holds another plan.
        **more: kept beside the plan.

    Raises:
        ValueError: the folder holds another plan.
        OSError: it cannot be written.
    """
    from kava.student.checkpoint import library_versions

    if path.is_file():
        apart = ", ".join(differing(read_lock(path, what)["plan"], plan))
        if apart:
            raise ValueError(
                f"{path.parent} holds a {what} with another plan ({apart}): a plan is not changed "
                f"after its first run; {mend}"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = {
        "plan": plan,
        "plan_hash": canonical_hash(plan),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "command": command,
        **more,
    }
    write_all({**beside, path: json.dumps(lock, indent=2, ensure_ascii=False) + "\n"})


def read_lock(path: Path, what: str) -> dict[str, Any]:
    """Read a locked plan and what stands beside it.

    Args:
        path: the lock.
        what: a study or a curriculum, for messages.

    Raises:
        ValueError: no such file, or one that was truncated or edited.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} holds no {what}: it has no {path.name}; name the folder that kava "
            f"{what} run wrote"
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


def differing(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """The keys at which two plans differ, with the old and the new value."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from differing(then.get(key), now.get(key), f"{where}.{key}".lstrip("."))
    elif then != now:
        yield f"{where} {then!s:.40}, now {now!s:.40}"
