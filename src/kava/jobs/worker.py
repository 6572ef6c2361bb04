"""The life of a worker process: it does the jobs that its parent sends, one after the other.

What a job prints goes to its log file. An error ends the process: its traceback goes to the log,
and its reason to the parent. SIGTERM ends it in good order, and the end of the parent at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kava.errors import USER_ERRORS, cannot_write, describe
from kava.jobs.parent import end_with_parent, leave_terminal_to_parent
from kava.stopping import Stopped, stop_on_signals

if TYPE_CHECKING:
    from kava.files.locks import Lock
    from kava.train.build import Run
    from kava.train.config import TrainConfig
    from kava.train.data import Data

REPORT_EVERY_SECONDS = 0.2


class Job(Protocol):
    """Something to do in a process of its own; it travels there by pickle."""

    @property
    def name(self) -> str:
        """As people read it."""

    @property
    def log(self) -> Path:
        """The file of what it prints."""

    @property
    def num_steps(self) -> int:
        """Steps to show in its bar."""

    @property
    def unit(self) -> str:
        """What these steps are."""

    def do(self, connection: Connection, memory: Memory) -> Any:
        """Do it; may send `Progress`. What it returns goes to the parent."""


@dataclass(frozen=True)
class Progress:
    """How far a job has come; `accuracy` after an evaluation."""

    step: int
    accuracy: float | None = None


class Memory:
    """The data of the last run, encoded: the next one often has the same."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.data: Data | None = None

    def build(self, config: TrainConfig) -> Run:
        """`build_run`, with the remembered data where they are those of this configuration."""
        from kava.train.build import build_run
        from kava.train.data import data_key

        key = data_key(config)
        if key != self.key:
            self.key = self.data = None  # so that two data sets are never held at once
        run = build_run(config, self.data)
        self.key, self.data = key, run.data
        return run


@dataclass(frozen=True)
class Failed:
    """What a job that failed sends in place of an outcome.

    Attributes:
        reason: in one line.
        cannot_write: the disk takes nothing more, so that other jobs would fail as well.
    """

    reason: str
    cannot_write: bool = False


def work(connection: Connection, lock: Lock | None) -> None:
    """Do the jobs that come through `connection` until None does.

    Args:
        connection: to the parent.
        lock: of the parent's output folder, which stays locked as long as this process lives.
    """
    end_with_parent()
    leave_terminal_to_parent()
    try:
        with stop_on_signals((signal.SIGTERM,), repeat_ends=False):
            memory = Memory()
            while (job := connection.recv()) is not None:
                _settle()
                connection.send(_done(job, connection, memory))
    except Stopped as stop:
        sys.exit(stop.exit_code)


def _done(job: Job, connection: Connection, memory: Memory) -> Any:
    try:
        return job.do(connection, memory)
    except Exception as error:
        with suppress(OSError):  # a full disk takes no traceback
            traceback.print_exc()
        mendable = isinstance(error, USER_ERRORS)
        reason = describe(error) if mendable else traceback.format_exception_only(error)[-1]
        connection.send(Failed(" ".join(reason.split()), cannot_write(error)))
        sys.exit(1)


def make_watch(connection: Connection) -> Any:
    """A trainer callback that sends `Progress`."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.reported = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            if now - self.reported >= REPORT_EVERY_SECONDS:
                self.reported = now
                connection.send(Progress(state.global_step))

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            connection.send(Progress(state.global_step, kwargs["metrics"].get("eval_accuracy")))

    return Watch()


def print_to(path: Path, *, append: bool = False) -> None:
    """Send all that this process prints, the libraries' native code included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    how = os.O_APPEND if append else os.O_TRUNC
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _settle() -> None:
    import torch

    from kava.models.quiet import quiet_libraries

    torch.set_num_threads(1)  # on models this small, threads only wait for each other
    quiet_libraries()
