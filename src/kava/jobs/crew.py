"""Do jobs a few at a time, in worker processes.

Processes are spawned, not forked: a fork of a process that has used torch's threads can hang.
Ctrl-C ends the workers; what they had finished is finished.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, connection, get_context
from typing import Any

from kava.errors import KavaError
from kava.jobs.progress import ProgressView
from kava.jobs.worker import Job, Progress, work


@dataclass(frozen=True)
class Failure:
    """What a job that failed leaves in place of an outcome: the reason, in one line."""

    reason: str


class Crew:
    """Worker processes that do jobs in parallel.

    Args:
        size: how many.
        view: shows what they do.
        keep_going: go on with the other jobs when one fails; its outcome is then a `Failure`.
    """

    def __init__(self, size: int, view: ProgressView, *, keep_going: bool = False):
        self.view = view
        self.keep_going = keep_going
        self.workers = [Worker() for _ in range(size)]

    def do(self, jobs: Sequence[Job]) -> Iterator[tuple[Any, Any]]:
        """Each job with its outcome, as soon as it has ended.

        Raises:
            KavaError: a job failed, or its process was killed, and the crew does not keep going.
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
                        worker = Worker()
                        self.workers.append(worker)
                if waiting:
                    self._start(worker, waiting)
                yield job, message

    def _hear(self, worker: Worker) -> Any:
        try:
            return worker.hear()
        except KavaError as error:
            if not self.keep_going:
                raise
            return Failure(str(error))

    def _start(self, worker: Worker, waiting: deque[Job]) -> None:
        worker.job = job = waiting.popleft()
        worker.connection.send(job)
        self.view.start(job.name, job.num_steps, job.unit)

    def end(self) -> None:
        """End the processes: idle ones on their own, busy ones by force."""
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.process.join()


class Worker:
    """A process, and the job it is at."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.job: Job | None = None
        self.process = get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
        # Ctrl-C reaches the parent, which ends its workers; a process inherits what it ignores
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, interrupt)
        theirs.close()  # so that the end of the process is the end of the connection

    def hear(self) -> Any:
        """The next message.

        Raises:
            KavaError: the process has ended instead.
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise KavaError(self._obituary()) from None

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
        if code is not None and code < 0:
            reason = f"its process was ended by signal {-code}"
        else:
            reason = said[-1] if said else f"its process ended with exit code {code}"
        return f"{self.job.name} failed: {reason} (its log: {log})"
