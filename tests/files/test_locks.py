"""One run at a time in a folder, whatever ends the runs before it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from kava.errors import KavaError
from kava.files import locks
from kava.files.locks import LOCK_NAME, Lock, is_locked, lock_file, lock_folder

TakeLock = Callable[[Path, str], AbstractContextManager[Lock | None]]


@pytest.mark.parametrize("take", [lock_folder, lock_file])
def test_a_second_run_is_refused_in_a_line_that_says_who_is_there(
    tmp_path: Path, take: TakeLock
) -> None:
    place = tmp_path / "out"
    with take(place, "kava train"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(KavaError) as refusal, take(place, "kava demo"):
            pass
        assert sorted(tmp_path.rglob("*")) == before
    assert re.fullmatch(
        rf"{re.escape(str(place))} is in use: kava train has been at work there since "
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S* \(process {os.getpid()} on {platform.node()}\); "
        r"wait for it, end it, or name another place",
        str(refusal.value),
    )
    with take(place, "kava demo"):
        pass


def test_a_folder_in_which_no_file_can_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc: it is there, and the system says of each file in it that it is not."""

    def no_file(path: Path, *, shared: bool) -> tuple[int, bool]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr("kava.files.locks.open_locked", no_file)
    monkeypatch.setattr("kava.files.locks.ENDING_SECONDS", 0.05)
    with (
        pytest.raises(FileNotFoundError, match=r"rows\.jsonl\.lock"),
        lock_file(tmp_path / "rows.jsonl", "kava rationales"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("take", [lock_folder, lock_file])
def test_nothing_is_left_of_a_lock_but_what_was_written_under_it(
    tmp_path: Path, take: TakeLock
) -> None:
    with take(tmp_path / "a" / "b" / "c", "kava train"):
        pass
    assert list(tmp_path.iterdir()) == []
    with take(tmp_path / "a" / "b", "kava train"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = [".items.jsonl.0123abcd.partial", "checkpoint-3/.manifest.json.ffffffff.partial"]
    kept = [".items.jsonl.partial", ".cache.part", "checkpoint-3/manifest.json", "a/b/.c"]
    for name in left + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with lock_folder(tmp_path, "kava train"):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*kept, LOCK_NAME}


def test_a_shared_lock_admits_its_like_and_keeps_the_others_out(tmp_path: Path) -> None:
    def refused(shared: bool) -> bool:
        try:
            with lock_folder(tmp_path, "kava study run", shared=shared):
                return False
        except KavaError as error:
            return "is in use: kava study run has been at work there" in str(error)

    partial = tmp_path / ".items.jsonl.0123abcd.partial"
    with lock_folder(tmp_path, "kava study run", shared=True):
        partial.touch()
        assert not refused(shared=True)
        assert refused(shared=False), "one of two was left, and it still holds the lock"
        assert not is_locked(tmp_path)
        assert partial.exists(), "another run may be in the middle of a write"
    assert not (tmp_path / LOCK_NAME).exists(), "the last one removes the file"
    with lock_folder(tmp_path, "kava study run"):
        assert refused(shared=True)
        assert is_locked(tmp_path)
    assert not partial.exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with lock_folder(tmp_path / "mine", "kava train"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_lock_is_released_where_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with lock_folder("out", "kava train"):
        (tmp_path / "out" / "result").touch()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert not (tmp_path / "out" / LOCK_NAME).exists()


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal; from kava.files.locks import lock_folder\n"
        "with lock_folder('out', 'kava train'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / LOCK_NAME).is_file()
    assert not is_locked(tmp_path / "out")
    with lock_folder(tmp_path / "out", "kava train"):
        said = json.loads((tmp_path / "out" / LOCK_NAME).read_text())
        assert said["pid"] == os.getpid()
        assert is_locked(tmp_path / "out")
    assert not (tmp_path / "out" / LOCK_NAME).exists()


def _wait_for_word(connection: Any, lock: Lock) -> None:
    connection.send("here")
    connection.recv()


def test_a_lock_lives_as_long_as_a_worker_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = multiprocessing.Pipe()
    with lock_folder(tmp_path, "kava study run") as lock:
        worker = multiprocessing.get_context("spawn").Process(
            target=_wait_for_word, args=(theirs, lock)
        )
        worker.start()
        assert ours.recv() == "here"
        os.close(lock.descriptor)  # as the end of this process would
        assert is_locked(tmp_path)
        monkeypatch.setattr(locks, "ENDING_SECONDS", 0)
        with pytest.raises(KavaError, match="is in use"), lock_folder(tmp_path, "kava study run"):
            pass
        ours.send("go")
        worker.join()
        assert not is_locked(tmp_path)
        lock.descriptor = os.open(os.devnull, os.O_RDONLY)


def test_the_workers_of_a_run_that_has_just_ended_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / LOCK_NAME
    descriptor, _ = locks.open_locked(path)
    path.write_text(json.dumps({"holder": "x", "pid": gone.pid, "host": platform.node()}))
    waits = []

    def end_worker(seconds: float) -> None:
        waits.append(seconds)
        os.close(descriptor)

    monkeypatch.setattr(locks.time, "sleep", end_worker)
    with lock_folder(tmp_path, "kava train"):
        pass
    assert len(waits) == 1


@pytest.mark.parametrize("path", ["/dev/null", None])
def test_a_device_and_nothing_need_no_lock(path: str | None) -> None:
    with lock_file(path, "kava evaluate") as lock:
        assert lock is None


def test_a_file_system_that_cannot_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path / "out", "kava train"):
        assert not is_locked(tmp_path / "out")
    said = capsys.readouterr().err
    assert f"warning: the file system of {tmp_path / 'out'} cannot lock" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_lock_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.os, "pwrite", refuse)
    with (
        pytest.raises(OSError, match=os.strerror(number)) as error,
        lock_folder(tmp_path / "a" / "out", "kava train"),
    ):
        pass
    assert error.value.filename == str(tmp_path / "a" / "out" / LOCK_NAME)
    assert list(tmp_path.iterdir()) == []
