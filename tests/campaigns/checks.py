"""What must hold after a kill, and after the run that went on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kava.files.locks import LOCK_NAME, is_locked
from kava.student.checkpoint import latest_checkpoint

_PNG_END = b"IEND\xaeB`\x82"
_TEMPORARY = re.compile(r"\..*\.(partial|old|tmp|lock)|\.saving|\.kava\.lock")


def broken_files(folder: Path) -> Iterator[str]:
    """Files that have their name and are not whole; what is hidden has not got it yet."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        problem = _problem(path)
        if problem is not None:
            yield f"{path.relative_to(folder)} is not whole: {problem}"
    for place in {path.parent for path in folder.rglob("checkpoint-*") if path.is_dir()}:
        names = [path.name for path in place.glob("checkpoint-*")]
        newest = max(names, key=lambda name: int(name.partition("-")[2]))
        whole = latest_checkpoint(place)
        if whole is None or whole.name != newest:
            yield f"{place.relative_to(folder) / newest} is not whole"


def _problem(path: Path) -> str | None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            text = path.read_text()
            if text and not text.endswith("\n"):
                return "half a line"
            for line in text.splitlines():
                json.loads(line)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix == ".png" and not path.read_bytes().endswith(_PNG_END):
            return "half a picture"
    except (ValueError, SafetensorError) as error:
        return str(error)
    return None


def held_locks(folder: Path) -> Iterator[str]:
    """Locks that outlived their run."""
    for path in folder.rglob(LOCK_NAME):
        if is_locked(path.parent):
            yield f"{path.parent.relative_to(folder)} is locked still"


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [
        f"{path.relative_to(folder)} is left"
        for path in sorted(folder.rglob(".*"))
        if _TEMPORARY.fullmatch(path.name)
    ]


def differences(found: Any, wanted: Any, where: str = "") -> Iterator[str]:
    """Where two outcomes differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}, key=str):
            if key not in found or key not in wanted:
                yield f"{where}{key} is {'missing' if key in wanted else 'too much'}"
            else:
                yield from differences(found[key], wanted[key], f"{where}{key}, ")
    elif isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            yield f"{where}{len(found)} in place of {len(wanted)}"
        for place, (ours, theirs) in enumerate(zip(found, wanted)):
            yield from differences(ours, theirs, f"{where}number {place}, ")
    elif found != wanted:
        yield f"{where}{found!r} in place of {wanted!r}"
