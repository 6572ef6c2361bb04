"""One run at a time in a folder, or on a file: a lock that the kernel frees when a process ends.

The lock is an advisory `flock` on a hidden file, in the folder or beside the file, which says who
holds it. It is gone when its holder ends, however that happens. The file is removed in good
order; one that a killed process left behind counts for nothing. Worker processes can hold the
lock too, so that it stays as long as one of them lives.

Between machines it works where the file system passes `flock` on, as NFS does. A file system that
cannot lock is named in a warning.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from kava.errors import KavaError
from kava.files.write import is_special, naming, open_locked, sweep
from kava.stopping import holding

LOCK_NAME = ".kava.lock"
"""The lock's file in a folder."""

ENDING_SECONDS = 2.0
"""How long to wait for a lock whose holder has ended: its workers end in a moment."""


class Lock:
    """A lock that is held. A process that is spawned with it as an argument holds it too.

    Args:
        descriptor: of the locked file.
        path: of that file.
        made: the folders that were made for it, the outermost first.
        shared: others may hold it too.
    """

    def __init__(self, descriptor: int, path: Path, made: list[Path], shared: bool = False):
        self.descriptor = descriptor
        self.path = path
        self.made = made
        self.shared = shared

    def release(self) -> None:
        """Remove the file, and the folders that were made for it where nothing came into them."""
        with holding():
            with suppress(OSError):
                if self.shared:
                    self._be_the_last()
                os.unlink(self.path)  # while it is locked, so that it is nobody else's
            os.close(self.descriptor)
            _remove_empty(self.made)

    def _be_the_last(self) -> None:
        """Lock for this process alone; a `BlockingIOError` where others share the lock."""
        import fcntl

        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _in_child, (DupFd(self.descriptor), self.path, self.shared)


def _in_child(descriptor: Any, path: Path, shared: bool) -> Lock:
    return Lock(descriptor.detach(), path, [], shared)


@contextmanager
def lock_folder(
    folder: str | Path | None, holder: str, *, shared: bool = False
) -> Iterator[Lock | None]:
    """Keep other runs out of a folder while the block runs; it is made where it is not there.

    What runs that were killed left behind in the middle of a write is removed, from the folder
    and those directly in it; not under a shared lock, where others may be in the middle of one.

    Args:
        folder: what the run writes to; None needs no lock.
        holder: what the run is, for the message that others get, such as "kava train".
        shared: admit other runs that ask for the lock shared, too, and keep the others out.

    Raises:
        KavaError: another run is at work there; says which, on which machine and since when.
        OSError: the folder cannot be written to.

    Example:
        >>> with lock_folder("outputs/run", "kava train"):
        ...     train_student()
    """
    if folder is None:
        yield None
        return
    folder = Path(folder)
    lock = _acquire(folder / LOCK_NAME, folder, holder, shared)
    try:
        for place in () if shared else (folder, *filter(Path.is_dir, folder.iterdir())):
            sweep(place)
        yield lock
    finally:
        lock.release()


@contextmanager
def lock_file(path: str | Path | None, holder: str) -> Iterator[Lock | None]:
    """Keep other runs from writing a file while the block runs; its folder is made.

    Args:
        path: the file; it need not be there. None, a device and a pipe need no lock.
        holder: as in `lock_folder`.

    Raises:
        KavaError: another run is at work on it.
        OSError: its folder cannot be written to.
    """
    if path is None or is_special(Path(path)):
        yield None
        return
    path = Path(path)
    lock = _acquire(path.with_name(f".{path.name}.lock"), path, holder)
    try:
        yield lock
    finally:
        lock.release()


def clear_folder(folder: str | Path) -> None:
    """Remove all that a folder holds but its lock, for a run that begins anew under it."""
    for path in Path(folder).iterdir():
        if path.name == LOCK_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_locked(folder: str | Path) -> bool:
    """Whether a run is at work in a folder that shares it with none."""
    import fcntl

    try:
        descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that cannot lock
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, output: Path, holder: str, shared: bool = False) -> Lock:
    path = path.absolute()  # what is released is what was locked, wherever the process goes
    with holding():
        made = _make_folders(path.parent)
        try:
            descriptor = _open_waiting(path, output, shared)
        except BaseException:
            _remove_empty(made)
            raise
        lock = Lock(descriptor, path, made, shared)
        try:
            with naming(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_about(holder)).encode(), 0)
        except OSError:
            lock.release()
            raise
    return lock


def _open_waiting(path: Path, output: Path, shared: bool) -> int:
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            descriptor, locked = open_locked(path, shared=shared)
        except FileNotFoundError:  # another run, ending, has removed its folder
            if time.monotonic() >= deadline:  # or no file can be made in it, as in /proc
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
            time.sleep(0.01)
        except BlockingIOError:
            found = _read(path)
            # the last of those that share a lock holds it alone for a moment, to remove it
            if (shared or _has_ended(found)) and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise KavaError(_refusal(output, found)) from None
        else:
            if not locked:
                print(
                    f"kava: warning: the file system of {output} cannot lock: see to it that no "
                    f"other run writes there",
                    file=sys.stderr,
                )
            return descriptor


def _about(holder: str) -> dict[str, Any]:
    started = datetime.now().astimezone().isoformat(timespec="seconds", sep=" ")
    return {"holder": holder, "pid": os.getpid(), "host": platform.node(), "started": started}


def _read(path: Path) -> dict[str, Any]:
    """What a lock's file says; empty where its holder has not written it yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_ended(found: dict[str, Any]) -> bool:
    """Whether the process of a lock is gone: what holds it still are its workers, which end too."""
    if not found:
        return True
    if found.get("host") != platform.node():
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _refusal(output: Path, found: dict[str, Any]) -> str:
    who = found.get("holder", "another run")
    since = f" since {found['started']}" if "started" in found else ""
    where = f" (process {found['pid']} on {found['host']})" if "pid" in found else ""
    return (
        f"{output} is in use: {who} has been at work there{since}{where}; wait for it, end it, or "
        f"name another place"
    )


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; which ones were made, the outermost first."""
    missing = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        missing.append(place)
    made: list[Path] = []
    for place in reversed(missing):
        try:
            place.mkdir()
        except FileExistsError:  # made by another process meanwhile
            continue
        except OSError:
            _remove_empty(made)
            raise
        made.append(place)
    return made


def _remove_empty(made: list[Path]) -> None:
    for place in reversed(made):
        try:
            place.rmdir()
        except OSError:
            return
