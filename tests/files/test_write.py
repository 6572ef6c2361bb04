"""Files and lines that are whole or absent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kava.files import write as files
from kava.files.write import append_whole, open_locked, write_all, write_whole

Write = Callable[[int, bytes], int]


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Let writes fail with an errno, once so many bytes have been written."""

    def fill(space: int, number: int = errno.ENOSPC) -> None:
        write: Write = os.write
        left = [space]

        def limited(descriptor: int, data: bytes) -> int:
            if not left[0]:
                raise OSError(number, os.strerror(number))
            written = write(descriptor, bytes(data)[: left[0]])
            left[0] -= written
            return written

        monkeypatch.setattr(files.os, "write", limited)

    return fill


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    write_all({tmp_path / "a.txt": "new", tmp_path / "b.bin": b"\x00\xff"})
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == {"a.txt", "b.bin"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("space", [0, 3, 8])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, full_after: Callable[[int, int], None], number: int, space: int
) -> None:
    (tmp_path / "a.txt").write_text("old")
    full_after(space, number)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        write_all({tmp_path / "a.txt": "newer", tmp_path / "b.txt": "newer"})
    assert error.value.errno == number
    assert error.value.filename == str(tmp_path / ("b.txt" if space == 8 else "a.txt"))
    assert names(tmp_path) == {"a.txt"}
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_in_the_place_of_a_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_all({tmp_path / "a": "x", tmp_path / "b": "x"})
    assert error.value.filename == str(tmp_path / "b")
    assert names(tmp_path) == {"b"}


@pytest.mark.parametrize("space", [0, 5])
def test_a_line_is_whole_or_absent(
    tmp_path: Path, full_after: Callable[[int], None], space: int
) -> None:
    path = tmp_path / "log.jsonl"
    append_whole(path, "first\n")
    full_after(space)
    with pytest.raises(OSError, match="No space left") as error:
        append_whole(path, "the second line\n")
    assert error.value.filename == str(path)
    assert path.read_text() == "first\n"


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def test_what_a_killed_writer_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from kava.files import write as files\n"
        "files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_whole('a[1].json', 'x')"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a[1].json.")
    at_work = tmp_path / ".a[1].json.01234567.partial"
    descriptor, _ = open_locked(at_work)
    other = tmp_path / ".b.json.01234567.partial"
    other.write_text("another file's")
    write_whole(tmp_path / "a[1].json", "whole")
    assert names(tmp_path) == {"a[1].json", at_work.name, other.name}
    os.close(descriptor)


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    path, flock, removed = tmp_path / "lock", fcntl.flock, []

    def remove_first(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(path.stat().st_ino)
            path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    descriptor, locked = open_locked(path)
    assert locked
    assert os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)


def test_a_file_system_that_cannot_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    descriptor, locked = open_locked(tmp_path / "lock")
    os.close(descriptor)
    assert not locked
    write_whole(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"
