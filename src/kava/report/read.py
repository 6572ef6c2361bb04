"""Read files of a study; a missing, truncated or edited file is an error that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kava import inputs
from kava.inputs import Malformed, json_lines


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file is missing or not a complete JSON object; the message names it.
    """
    with _naming(path):
        value = inputs.read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object but a {type(value).__name__}")
    return value


def read_lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The objects of a file with one JSON object a line.

    Raises:
        ValueError: the file is missing or empty, or a line is not a complete JSON object; the
            message names the file and the line.
    """
    with _naming(path):
        lines = tuple(row for _, row in json_lines(path))
    if not lines:
        raise ValueError(f"{path} is empty; run its run again")
    return lines


def check_hash(path: Path, expected: str) -> None:
    """Compare a file with the sha256 that its run recorded.

    Raises:
        ValueError: the file is missing, truncated or edited; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, though its result.json names it; run its run again")
    found = sha256_of(path)
    if found == expected:
        return
    # a truncated file is reported as truncated, whatever its hash
    (read_lines if path.suffix == ".jsonl" else read_json)(path)
    raise ValueError(
        f"{path} was cut or edited after its run: its sha256 is {found[:12]}…, its run wrote "
        f"{expected[:12]}…; restore it or run its run again"
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add advice about a missing or incomplete file to an error."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Malformed as error:
        place = "" if error.line is None else f"line {error.line} "
        raise ValueError(
            f"{path} is cut or damaged: {place}{error.problem}; run its run again"
        ) from None
