"""Places that a command writes to: refused at once where they cannot be, and nothing is made.

An hour of work is lost where a wrong place shows at the end of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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


def check_run_folder(
    folder: str | Path,
    flag: str = "--output_dir",
    *,
    files: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> None:
    """Refuse an output folder that cannot be written to, or in which something is in the way.

    Args:
        folder: of a run.
        flag: where it was named, for messages.
        files: the names of files that the run will write in it.
        folders: the names of folders that the run will write in it.

    Raises:
        ValueError, OSError: as `check_output_folder`, of the folder and of what is written in it.

    Example:
        >>> check_run_folder("outputs/run", files=["metrics.jsonl"])
    """
    check_output_folder(folder, flag)
    for name in (*files, *folders):
        path, is_file = Path(folder) / name, name in files
        if path.exists() and path.is_file() != is_file:
            there, wanted = ("folder", "file") if is_file else ("file", "folder")
            raise ValueError(
                f"{flag} {folder}: {path} is a {there}, where the run writes a {wanted}; move it "
                f"away, or name another folder"
            )
        if path.exists() and not os.access(path, os.W_OK):
            raise OSError(
                f"{flag} {folder}: {path} cannot be written to; change its permissions, or name "
                f"another folder"
            )


def _check_writable(folder: Path, named: str) -> None:
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError(f"{named}: {nearest} is a file, in which no folder can be; name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OSError(
            f"{named}: {nearest} cannot be written to; name another place, or change its "
            f"permissions"
        )
