"""Commands in processes that cost little: forks of one that has torch loaded, to be killed."""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from campaigns.commands import Command
from kava.cli import run

LIMIT_SECONDS = 240.0
"""After that a command counts as hanging."""

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR


class FileOperations:
    """Counts the changes to files that a command and its workers are about to make.

    Args:
        at: before the so-many-th, send a signal; 0: only count.
        signum: the signal.
        to_worker: send it to the worker that makes the change, or the first that makes one after
            it, in place of the command itself.
    """

    def __init__(self, at: int = 0, signum: int = 0, to_worker: bool = False):
        self.at = at
        self.signum = signum
        self.to_worker = to_worker
        self._leader = 0
        self._memory = mmap.mmap(-1, 16)  # shared with the processes that are forked

    @property
    def count(self) -> int:
        """Changes so far."""
        number: int = struct.unpack("q", self._memory[:8])[0]
        return number

    @property
    def sent(self) -> float | None:
        """When the signal was sent, by the monotonic clock."""
        seconds: float = struct.unpack("d", self._memory[8:])[0]
        return seconds or None

    def watch(self) -> None:
        """Count in this process, which is the command's, and those that it forks."""
        self._leader = os.getpid()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _CHANGES and not (event == "open" and args[2] & _WRITES):
            return
        self._memory[:8] = struct.pack("q", self.count + 1)
        if not self.at or self.count < self.at or self.sent:
            return
        if self.to_worker and os.getpid() == self._leader:
            return
        self._memory[8:] = struct.pack("d", time.monotonic())
        os.kill(os.getpid() if self.to_worker else self._leader, self.signum)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative after a signal, None where it was still running after
            `LIMIT_SECONDS`.
        said: its stderr.
        seconds: that it ran.
        late: seconds from the signal to the end, where one was sent.
        left: ids of processes that outlived it.
    """

    code: int | None
    said: str
    seconds: float
    late: float | None
    left: list[int]


class Running:
    """A command in a session of its own, in the folder that it works in.

    Args:
        command: what to run.
        argv: its arguments.
        folder: its current folder; what it prints goes to `said.txt` beside it.
        operations: counts, or acts, in it.
    """

    def __init__(
        self,
        command: Command,
        argv: list[str],
        folder: Path,
        operations: FileOperations | None = None,
    ):
        self.log = folder.with_name(folder.name + ".said.txt")
        self.operations = operations
        self.sent: float | None = None
        self.began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _be(command, argv, folder, self.log, operations)

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended."""
        deadline = time.monotonic() + seconds
        while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.003)
        return True

    def send(self, signum: int, to_worker: bool = False) -> None:
        """Send a signal to it, or to its oldest worker where it has one."""
        targets = sorted(p.pid for p in _processes() if p.parent == self.pid)
        target = next(iter(targets), None) if to_worker else self.pid
        if target is not None:
            self.sent = time.monotonic()
            os.kill(target, signum)

    def end(self) -> Ended:
        """Wait for the end, and for that of its workers."""
        code: int | None = None
        if self.wait(LIMIT_SECONDS):
            now = time.monotonic()
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        else:
            now = time.monotonic()
        left = self._outlived()
        if code is None:
            os.waitpid(self.pid, 0)
        sent = self.sent if self.operations is None else self.operations.sent
        late = None if sent is None else now - sent
        said = self.log.read_text(errors="replace")
        return Ended(code, said, now - self.began, late, left)

    def _outlived(self) -> list[int]:
        """Processes of its session that are there seconds after its end; they are killed."""
        deadline = time.monotonic() + 5
        while left := [p.pid for p in _processes() if p.session == self.pid]:
            if time.monotonic() >= deadline:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                return left
            time.sleep(0.01)
        return []


def _be(
    command: Command, argv: list[str], folder: Path, log: Path, operations: FileOperations | None
) -> None:
    """Become the command; never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        # workers are forked from this process, which has not used torch, in place of loading it
        import kava.jobs.crew

        kava.jobs.crew.get_context = lambda _: multiprocessing.get_context("fork")
        if operations is not None:
            operations.watch()
        code = run(command.function, argv)
        atexit._run_exitfuncs()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int


def _processes() -> list[_Process]:
    """Every process that has not ended.

    A process whose first thread has ended still has its files, and its locks, until the last has.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            _, parent, _, session = _stat(folder)
            ended = all(_stat(thread)[0] == "Z" for thread in (folder / "task").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not ended:
            found.append(_Process(int(folder.name), int(parent), int(session)))
    return found


def _stat(folder: Path) -> list[str]:
    """State, parent, group and session of a process or a thread."""
    return (folder / "stat").read_text().rpartition(")")[2].split()[:4]
