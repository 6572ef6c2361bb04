"""What every scheduler offers: the lines of a script, submission, states, cancelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from kava.cluster.options import JobOptions
from kava.inputs import read_text

FOLDER = "cluster"
"""In a study's folder: scripts, logs and the record of its jobs."""

RESUBMITTED = "resubmitted"
"""In that folder: task and id of the jobs that a task was submitted again as, a line each."""


class Job(NamedTuple):
    """A job as the scheduler sees it.

    Attributes:
        id: of the job.
        state: in lower case: pending, running, completing, completed, failed, timeout …
        elapsed: how long it has been running.
        reason: why it waits.
    """

    id: str
    state: str
    elapsed: str = ""
    reason: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE


ACTIVE = frozenset(
    {
        *("pending", "running", "completing", "configuring", "suspended", "requeued"),
        *("requeue_hold", "special_exit", "signaling", "stage_out", "resizing", "stopped"),
        *("resv_del_hold", "requeue_fed", "power_up_node"),
    }
)


class Submission(NamedTuple):
    """What was submitted together.

    Attributes:
        engine: the scheduler.
        runs: id of the array, or of the process.
        report: id of the report's job; empty if there is none.
        tasks: arm and seed of each task, by its number.
        submitted: when.
        limit: time limit of a job in seconds.
    """

    engine: str
    runs: str
    report: str
    tasks: tuple[tuple[str, int], ...]
    submitted: str
    limit: int


class Scheduler(Protocol):
    """A scheduler: how its scripts begin and go on, and how its jobs are handled."""

    suffix: str
    """Of its scripts' names."""
    task: str
    """The shell expression of a task's number."""

    def check(self, options: JobOptions, num_tasks: int) -> None:
        """Refuse options that this cluster cannot meet, before anything is written.

        Raises:
            KavaError, ValueError: no such scheduler, partition, …
        """

    def run_head(self, name: str, options: JobOptions, folder: Path, num_tasks: int) -> list[str]:
        """The head of the script of the runs."""

    def report_head(self, name: str, options: JobOptions, folder: Path) -> list[str]:
        """The head of the report's script."""

    def before_report(self, folder: Path) -> list[str]:
        """The lines before the report is written."""

    def stopper(self, options: JobOptions) -> str:
        """What stands before the command, if something has to stop it ahead of the limit."""

    def again(self, folder: Path) -> list[str]:
        """The lines that have the same task done again."""

    def by_hand(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """The command that submits the script of the runs."""

    def submit_runs(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """Submit the runs; their id.

        Raises:
            KavaError: refused.
        """

    def submit_report(self, folder: Path, options: JobOptions, runs: str) -> str:
        """Submit the report behind the runs; its id.

        Raises:
            KavaError: refused.
        """

    def jobs(self, submission: Submission, folder: Path) -> Mapping[int | str, Job]:
        """The jobs of a submission by number of the task, and of `report`; those it knows of."""

    def cancel(self, submission: Submission, folder: Path, tasks: Sequence[int] | None) -> None:
        """Cancel tasks, or all of a submission with its report.

        Raises:
            KavaError: refused.
        """


def job_name(name: str) -> str:
    """A study's name as the name of a job, which has no spaces.

    Example:
        >>> job_name("my study")
        'my_study'
    """
    return name.replace(" ", "_").replace("+", "_")


def quoted(text: str) -> str:
    """A word of a line that a scheduler reads from a script: in quotes where it holds a space.

    Example:
        >>> quoted("/home/me/a study/logs/")
        '"/home/me/a study/logs/"'
    """
    return f'"{text}"' if " " in text else text


def resubmitted(folder: Path) -> dict[int, str]:
    """The newest job of each task that was submitted again."""
    path = folder / FOLDER / RESUBMITTED
    if not path.is_file():
        return {}
    pairs = (line.split() for line in read_text(path).splitlines())
    return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2 and pair[0].isdigit()}
