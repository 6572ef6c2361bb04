"""Do the jobs of a study, a few at a time, in worker processes.

Processes are spawned, not forked: a fork of a process that has used torch's threads can hang.
A worker that fails, or is killed, ends the study and is named; Ctrl-C ends the workers.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing import Pipe, connection, get_context
from pathlib import Path
from typing import Any

from kava.demo.progress import ProgressView
from kava.demo.results import Outcome, Result, percent
from kava.demo.worker import Cost, Job, Progress, RunJob, TimingJob, finished, work
from kava.errors import KavaError

TIMING_FILE = "timing.json"


def run_study(
    runs: Sequence[RunJob], folder: Path, *, num_jobs: int, overwrite: bool
) -> list[Result]:
    """Train, test and time all students.

    Args:
        runs: what to train, in the order of the results.
        folder: of the study.
        num_jobs: how many runs at a time.
        overwrite: do runs again that an earlier call has finished with the same settings.

    Raises:
        KavaError: a run failed; its name and its error, in one line.
    """
    done = {} if overwrite else {run.name: outcome for run in runs if (outcome := finished(run))}
    missing = [run for run in runs if run.name not in done]
    timing = TimingJob(tuple(runs), folder / "timing.log")
    costs = None if missing else _read_costs(folder / TIMING_FILE, runs)
    with ProgressView(sum(run.num_steps for run in missing)) as view:
        for count, (name, outcome) in enumerate(done.items(), start=1):
            view.say(f"[{count}/{len(runs)}] {name}: {_told(outcome)}, from an earlier call")
        crew = Crew(min(num_jobs, len(missing)) or int(costs is None), view)
        try:
            for run, outcome in crew.do(missing):
                done[run.name] = outcome
                view.say(f"[{len(done)}/{len(runs)}] {run.name}: {_told(outcome)}")
            if costs is None:
                ((_, costs),) = crew.do([timing])
                _save_costs(folder / TIMING_FILE, runs, costs)
        finally:
            crew.end()
    return [
        Result(
            **asdict(done[run.name]),
            forward_passes=cost.forward_passes,
            seconds_per_answer=cost.seconds,
        )
        for run, cost in zip(runs, costs)
    ]


def _told(outcome: Outcome) -> str:
    return f"{percent(outcome.accuracy)} of {outcome.num_items:,} answers right"


def _settings_hash(runs: Sequence[RunJob]) -> str:
    text = json.dumps([run.settings() for run in runs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_costs(path: Path, runs: Sequence[RunJob]) -> list[Cost] | None:
    """Earlier timings of the very same students, if there are any."""
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    if saved["settings_hash"] != _settings_hash(runs):
        return None
    return [Cost(**cost) for cost in saved["costs"]]


def _save_costs(path: Path, runs: Sequence[RunJob], costs: Sequence[Cost]) -> None:
    saved = {"settings_hash": _settings_hash(runs), "costs": [asdict(cost) for cost in costs]}
    path.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


class Crew:
    """Worker processes that do jobs in parallel.

    Args:
        size: how many.
        view: shows what they do.
    """

    def __init__(self, size: int, view: ProgressView):
        self.view = view
        self.workers = [Worker() for _ in range(size)]

    def do(self, jobs: Sequence[Job]) -> Iterator[tuple[Any, Any]]:
        """Each job with its outcome, as soon as it has ended.

        Raises:
            KavaError: a job failed.
        """
        waiting = deque(jobs)
        for worker in self.workers:
            if waiting:
                self._start(worker, waiting)
        while busy := {w.connection: w for w in self.workers if w.job is not None}:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, connection.Connection)
                worker = busy[ready]
                job, message = worker.job, worker.hear()
                assert job is not None
                if isinstance(message, Progress):
                    self.view.step(job.name, message.step, message.accuracy)
                    continue
                self.view.finish(job.name)
                worker.job = None
                if waiting:
                    self._start(worker, waiting)
                yield job, message

    def _start(self, worker: Worker, waiting: deque[Job]) -> None:
        worker.job = waiting.popleft()
        worker.connection.send(worker.job)
        unit = "answers" if isinstance(worker.job, TimingJob) else "steps"
        self.view.start(worker.job.name, worker.job.num_steps, unit)

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
