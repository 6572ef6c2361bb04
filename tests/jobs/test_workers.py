"""Workers end with their parent, in whatever way it ends, and hold its lock until then."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from kava.errors import KavaError, WriteError
from kava.files.locks import LOCK_NAME, is_locked
from kava.jobs import worker as worker_module
from kava.jobs.crew import Worker
from kava.jobs.worker import Failed

PROGRAM = Path(__file__).with_name("program.py")


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for another process; a test that waits in vain fails."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def parent(tmp_path: Path, request: pytest.FixtureRequest) -> subprocess.Popen[str]:
    """A process whose worker is at work."""
    by = getattr(request, "param", "kernel")
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tmp_path), by], stderr=subprocess.PIPE, text=True
    )
    wait_until((tmp_path / "pid").is_file)
    assert is_locked(tmp_path)
    return process


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("parent", ["kernel", "thread"], indirect=True)
def test_a_worker_does_not_outlive_a_parent_that_is_killed(
    tmp_path: Path, parent: subprocess.Popen[str]
) -> None:
    worker = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not lives(worker))
    assert not is_locked(tmp_path)
    assert not (tmp_path / "behind the signal").exists()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_worker_ends_in_good_order_when_its_parent_is_asked_to(
    tmp_path: Path, parent: subprocess.Popen[str], signum: int, code: int
) -> None:
    worker = int((tmp_path / "pid").read_text())
    if signum != signal.SIGTERM:
        os.kill(worker, signum)  # a terminal sends it to both; the worker waits for its turn
    parent.send_signal(signum)
    assert parent.wait(60) == code
    assert parent.stderr is not None
    assert "ending 1 run" in parent.stderr.read()
    assert not lives(worker)
    assert not (tmp_path / "behind the signal").exists()
    assert not (tmp_path / LOCK_NAME).exists()


@dataclass(frozen=True)
class Job:
    """A job that fails."""

    error: Exception
    name: str = "kv, seed 0"
    log: Path = Path("log.txt")

    def do(self, connection: Any, memory: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason", "full"),
    [
        (ValueError("--lr is\n bad"), "--lr is bad", False),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/metrics.jsonl"),
            "the disk is full while writing out/metrics.jsonl; free some space or write to "
            "another disk",
            True,
        ),
        (
            WriteError("the checkpoint of step 2 could not"),
            "the checkpoint of step 2 could not",
            True,
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "No such file: x", False),
        (TypeError("a defect"), "TypeError: a defect", False),
    ],
)
def test_a_job_that_fails_says_why_even_where_its_log_cannot(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, full: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker_module.traceback, "print_exc", refuse)
    ours, theirs = Pipe()
    with pytest.raises(SystemExit) as stop:
        worker_module._done(Job(error), theirs, None)  # type: ignore[arg-type]
    assert stop.value.code == 1
    assert ours.recv() == Failed(reason, full)


def test_the_reason_of_a_job_is_told_with_its_name_and_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()
    worker.job = Job(ValueError())  # type: ignore[assignment]
    try:
        ours, theirs = Pipe()
        theirs.send(Failed("--lr is bad"))
        monkeypatch.setattr(worker.process, "join", lambda: None)
        monkeypatch.setattr(worker, "connection", ours)
        with pytest.raises(
            KavaError, match=r"^kv, seed 0 failed: --lr is bad \(its log: log.txt\)$"
        ):
            worker.hear()
    finally:
        worker.process.kill()
