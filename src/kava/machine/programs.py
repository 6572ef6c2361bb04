"""Call a scheduler's programs; what they complain of becomes one line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from kava.errors import KavaError

PATIENCE_SECONDS = 60
"""How long a scheduler may take to answer."""


class Unreachable(KavaError):  # noqa: N818
    """A scheduler's program is not there, does not answer, or refuses."""


def has(program: str) -> bool:
    """Whether a program is on this machine."""
    return shutil.which(program) is not None


def call(argv: Sequence[str], *, text: str | None = None) -> str:
    """What a program prints.

    Args:
        argv: the program and its arguments.
        text: its standard input.

    Raises:
        Unreachable: it is not there, does not answer, or refuses; with its own words.

    Example:
        >>> call(["sbatch", "--parsable", "runs.sbatch"])
        '4711'
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise Unreachable(f"there is no {argv[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{argv[0]} has not answered for {PATIENCE_SECONDS} seconds") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise Unreachable(f"{argv[0]} refused: {said}")
    return done.stdout.strip()


def call_or_none(argv: Sequence[str]) -> str | None:
    """What a program prints, or None where it is not there or fails."""
    try:
        return call(argv)
    except KavaError:
        return None
