"""Do jobs a few at a time, in worker processes.

Processes are spawned, not forked: a fork of a process that has used torch's threads can hang.
A signal ends the workers in good order; what they had finished is finished. They hold the lock of
the output folder with their parent, and do not outlive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, connection, get_context
from typing import Any

from kava.errors import KavaError
from kava.files.locks import Lock
from kava.format import counted
from kava.jobs.parent import terminal_signals_blocked
from kava.jobs.progress import ProgressView
from kava.jobs.worker import Failed, Job, Progress, work
from kava.stopping import holding


@dataclass(frozen=True)
class Failure:
    """What a job that failed leaves in place of an outcome: see `Failed`."""

    reason: str
    cannot_write: bool = False


class JobError(KavaError):
    """A job that failed; its message names it, the reason and its log."""

    def __init__(self, message: str, cannot_write: bool):
        super().__init__(message)
        self.cannot_write = cannot_write


class Crew:
    """Worker processes that do jobs in parallel.

    Args:
        size: how many.
        view: shows what they do.
        keep_going: go on with the other jobs when one fails; its outcome is then a `Failure`.
        lock: of the output folder; the workers hold it too.
    """

    def __init__(
        self,
        size: int,
        view: ProgressView,
        *,
        keep_going: bool = False,
        lock: Lock | None = None,
    ):
        self.view = view
        self.keep_going = keep_going
        self.lock = lock
        self.workers = [Worker(lock) for _ in range(size)]

    def do(self, jobs: Sequence[Job]) -> Iterator[tuple[Any, Any]]:
        """Each job with its outcome, as soon as it has ended.

        Raises:
            JobError: a job failed, or its process was killed, and the crew does not keep going.
        """
        waiting = deque(jobs)
        for worker in self.workers:
            if waiting:
                self._start(worker, waiting)
        while busy := {w.connection: w for w in self.workers if w.job is not None}:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, connection.Connection)
                worker = busy[ready]
                job, message = worker.job, self._hear(worker)
                assert job is not None
                if isinstance(message, Progress):
                    self.view.step(job.name, message.step, message.accuracy)
                    continue
                self.view.finish(job.name)
                worker.job = None
                if isinstance(message, Failure):
                    self.workers.remove(worker)
                    if waiting:
                        worker = Worker(self.lock)
                        self.workers.append(worker)
                if waiting:
                    self._start(worker, waiting)
                yield job, message

    def _hear(self, worker: Worker) -> Any:
        try:
            return worker.hear()
        except JobError as error:
            if not self.keep_going:
                raise
            return Failure(str(error), error.cannot_write)

    def _start(self, worker: Worker, waiting: deque[Job]) -> None:
        worker.job = job = waiting.popleft()
        worker.connection.send(job)
        self.view.start(job.name, job.num_steps, job.unit)

    def end(self) -> None:
        """End the processes: idle ones on their own, busy ones by SIGTERM, in good order."""
        busy = sum(w.job is not None and w.process.is_alive() for w in self.workers)
        if busy:
            self.view.say(f"ending {counted(busy, 'run')}, with a checkpoint where it trains")
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.process.join()


class Worker:
    """A process, and the job it is at.

    Args:
        lock: of the output folder; the process holds it too.
    """

    def __init__(self, lock: Lock | None = None) -> None:
        self.connection, theirs = Pipe()
        self.job: Job | None = None
        self.process = get_context("spawn").Process(target=work, args=(theirs, lock), daemon=True)
        with holding(), terminal_signals_blocked():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection

    def hear(self) -> Any:
        """The next message.

        Raises:
            JobError: the job has failed, or the process has ended.
        """
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._failure(self._obituary()) from None
        if isinstance(message, Failed):
            self.process.join()
            raise self._failure(message.reason, message.cannot_write)
        return message

    def _failure(self, reason: str, cannot_write: bool = False) -> JobError:
        assert self.job is not None
        told = f"{self.job.name} failed: {reason} (its log: {self.job.log})"
        return JobError(told, cannot_write)

    def dismiss(self) -> None:
        """Let an idle process go; end a busy one."""
        if self.job is None and self.process.is_alive():
            self.connection.send(None)
        else:
            self.process.terminate()

    def _obituary(self) -> str:
        """What the process died of: a signal, or the last line of its log."""
        assert self.job is not None
        self.process.join()
        code, log = self.process.exitcode, self.job.log
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        said = [line.strip() for line in text.splitlines() if line.strip()]
        if code is not None and not 0 <= code <= 128:
            return f"its process was ended by signal {-code if code < 0 else code - 128}"
        return said[-1] if said else f"its process ended with exit code {code}"
