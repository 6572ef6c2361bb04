"""Files that are whole or absent, and lines that are whole or absent.

Every result goes through here. A file is written under a temporary name and renamed; the
temporary file is locked by its writer, so that the next writer knows one that a killed process
left behind, and removes it.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kava.stopping import holding

_TOKEN_BYTES = 4
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file under another name and rename it, so that a reader never sees half of it.

    Args:
        path: the file; one that is there is replaced. A link stays, and what it names is replaced.
        content: text (written as UTF-8) or bytes.

    Raises:
        OSError: it cannot be written; nothing of it is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/note.txt", "whole")
        ...     os.listdir(folder)
        ['note.txt']
    """
    write_all({Path(path): content})


def write_all(files: Mapping[Path, str | bytes]) -> None:
    """Write several files that belong together: all of them, or none.

    All are written under other names before the first is renamed, in their order: a reader that
    finds the last one finds the others too.

    Args:
        files: path → content, as in `write_whole`.

    Raises:
        OSError: one of them cannot be written; nothing is left of any, and files that were there
            before are as they were.
    """
    staged: list[_Staged] = []
    with holding():
        try:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                path = Path(os.path.realpath(name))
                with naming(name):
                    if is_special(path):
                        path.write_bytes(data)
                    elif path.is_dir():
                        raise IsADirectoryError(errno.EISDIR, "Is a directory")
                    else:
                        sweep(path.parent, glob.escape(path.name))
                        staged.append(_stage(path))
                        _write(staged[-1].descriptor, data)
                        os.fsync(staged[-1].descriptor)
            for one in staged:
                with naming(one.path):
                    os.replace(one.partial, one.path)
        finally:
            for one in staged:
                one.partial.unlink(missing_ok=True)
                os.close(one.descriptor)


class _Staged(NamedTuple):
    """A file on its way: its temporary name, which is locked, and where it goes."""

    partial: Path
    path: Path
    descriptor: int


def _stage(path: Path) -> _Staged:
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.partial")
        try:
            return _Staged(partial, path, open_locked(partial)[0])
        except BlockingIOError:  # another writer is sweeping it away
            continue


def replace_folder(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write a folder under another name, and put it in the place of one that is there.

    The caller holds a lock on the folder, so that nobody else does the same.

    Args:
        folder: what it will be called; those above it are made.
        files: name within the folder → content.

    Raises:
        OSError: it cannot be written; nothing of it is left, and one that was there is as it was.
    """
    with new_folder(folder) as partial:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with naming(folder / name):
                path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder inside the block, under another name; at its end it takes the place of one
    that is there.

    The caller holds a lock on the folder. Where the block or a write fails, nothing of the new
    folder is left, and one that was there is as it was.

    Args:
        folder: what it will be called; those above it are made.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with new_folder(Path(place, "out")) as partial:
        ...         _ = (partial / "note.txt").write_text("whole")
        ...     os.listdir(f"{place}/out")
        ['note.txt']
    """
    partial, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    with holding():
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():  # killed between the two renames below
            os.replace(old, folder)
        try:
            partial.mkdir(parents=True)
            yield partial
            share_files(partial)
            for path in partial.rglob("*"):
                with naming(folder / path.relative_to(partial)):
                    flush(path)
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def share_files(folder: Path) -> None:
    """Set default permissions on every file of a folder; safetensors makes its files private."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk before continuing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_whole(path: str | Path, data: str | bytes) -> None:
    """Add to the end of a file, whole or not at all.

    Args:
        path: the file; made where it is not there.
        data: a record, or a line with its end.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    with holding(), naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write(descriptor, data.encode() if isinstance(data, str) else data)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the file in an `OSError` of the block: the system names none when a write fails."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # without a number, a name hides the error's own words
            error.filename = str(path)
        raise


def is_special(path: Path) -> bool:
    """Whether a path is a device or a pipe, such as /dev/null: written straight, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def open_locked(path: Path, *, shared: bool = False) -> tuple[int, bool]:
    """Open a file, made where it is not there, and lock it.

    Args:
        path: the file.
        shared: share the lock with others that ask for it shared, too.

    Returns:
        its descriptor, which holds the lock until it is closed, and whether the file system can
        lock at all.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be made.
    """
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, path):  # its holder may have removed it between the two calls
                return descriptor, True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sweep(folder: Path, pattern: str = "*") -> None:
    """Remove the temporary files of writers that were killed.

    Args:
        folder: where they were written to.
        pattern: of the names of the files that they were to become.
    """
    for partial in folder.glob(f".{pattern}.{'[0-9a-f]' * 2 * _TOKEN_BYTES}.partial"):
        try:
            descriptor, locked = open_locked(partial)
        except OSError:  # its writer is at work, or has just renamed it
            continue
        if locked:
            partial.unlink(missing_ok=True)
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
