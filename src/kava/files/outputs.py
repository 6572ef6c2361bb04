"""Places that a command writes to: refused at once where they cannot be, and nothing is made.

An hour of work is lost where a wrong place shows at the end of it.
"""

from __future__ import annotations

import os
from pathlib import Path


def check_output(output: str | Path, flag: str = "--output") -> None:
    """Refuse a file that could not be written.

    Args:
        output: the file; it and its folders need not be there.
        flag: where it was named, for messages.

    Raises:
        ValueError: a folder of that name, or a file on the way to it.
        OSError: its folder cannot be made or written to.

    Example:
        >>> check_output("outputs/items.jsonl")
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{flag} {output} is a folder; name a file in it")
    _check_writable(output.parent, f"{flag} {output}")


def check_output_folder(folder: str | Path, flag: str = "--output") -> None:
    """Refuse a folder that could not be made or written to.

    Arguments, errors: as `check_output`, of a folder.

    Example:
        >>> check_output_folder("outputs/run", "--output_dir")
    """
    folder = Path(folder)
    if folder.resolve() == Path(folder.anchor or "/").resolve():
        raise ValueError(f"{flag} {folder} is the root of the disk; name a folder in it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{flag} {folder} is a file; name a folder")
    _check_writable(folder, f"{flag} {folder}")


def _check_writable(folder: Path, named: str) -> None:
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"{named}: {nearest} is a file, in which no folder can be; name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OSError(
            f"{named}: {nearest} cannot be written to; name another place, or change its "
            f"permissions"
        )
