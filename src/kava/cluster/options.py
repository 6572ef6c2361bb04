"""What a job of a study asks of the cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kava.flags import check_fields, flag
from kava.machine.durations import DAY, seconds_of

ENGINES = ("slurm", "pbs", "local")
REPORTS = ("afterok", "afterany", "none")
SECTIONS = (
    *("scheduler", "partitions", "gpus", "accounts", "python", "models", "data", "disk"),
    "scripts",
)
"""Of the checks before a study is submitted, in the order of their report."""
LONGEST = 366 * DAY
"""Of a job, in seconds."""
_SPACE = re.compile(r"\s")


@dataclass(kw_only=True)
class JobOptions:
    """The resources of each run of a study, and what its script does before it.

    Raises:
        ValueError: a value outside its range, or one that would break a line of the script.
    """

    engine: str | None = flag(
        None,
        "where the jobs run; local: processes of this machine",
        choices=ENGINES,
        unset="the scheduler of this machine",
    )
    partition: str | None = flag(None, "partition, under PBS the queue", unset="the cluster's")
    account: str | None = flag(None, "account that is charged", unset="yours")
    qos: str | None = flag(None, "quality of service", unset="the cluster's")
    gres: str | None = flag(
        None, "GPUs as the cluster spells them, such as gpu:1 or gpu:a100:1", unset="none"
    )
    cpus: int = flag(1, "CPU cores of a run", least=1, most=1024)
    mem: str | None = flag(None, "memory of a run, such as 16G", unset="the cluster's")
    time: str = flag(
        "08:00:00", "time limit of a job: minutes, HH:MM:SS or D-HH:MM:SS; a run may take several"
    )
    grace: int = flag(
        120,
        "seconds before the limit at which a run is asked to save and stop; Slurm may ask up to a "
        "minute earlier",
        least=1,
        most=86_400,
    )
    requeue: bool = flag(
        True, "let a run that reached the limit, or lost its node, go on in another job"
    )
    max_tasks: int | None = flag(
        None, "runs at a time", least=1, most=10_000, unset="all; of --engine local one"
    )
    report: str = flag(
        "afterok",
        "when the page of the study is written: after all runs have succeeded, after all have "
        "ended, or not at all",
        choices=REPORTS,
    )
    modules: list[str] | None = flag(
        None, "modules to load (module load)", metavar="MODULE", unset="none"
    )
    venv: str | None = flag(
        None, "virtual environment to activate", unset="the Python that submits"
    )
    prologue: list[str] | None = flag(
        None,
        "a line for the script before the run, such as 'export HF_HUB_OFFLINE=1'; may be repeated",
        repeat=True,
        metavar="LINE",
        unset="none",
    )
    directive: list[str] | None = flag(
        None,
        "a further option for the head of the script, as in --directive=--exclude=node7; may be "
        "repeated",
        repeat=True,
        metavar="OPTION",
        unset="none",
    )
    step_seconds: float | None = flag(
        None,
        "how long a step takes (kava profile), for the check against the limit",
        above=0,
        unset="from the runs in the folder",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("partition", "account", "qos", "gres", "mem"):
            value = getattr(self, name)
            if value is not None and _SPACE.search(value):
                raise ValueError(f"--{name} {value!r} holds a space; write it without")
        for name in ("modules", "prologue", "directive", "venv"):
            value = getattr(self, name) or []
            for line in [value] if isinstance(value, str) else value:
                if "\n" in line or "\r" in line:
                    raise ValueError(f"--{name} {line!r} is more than one line; repeat the flag")
        try:
            limit = seconds_of(self.time)
        except ValueError as error:
            raise ValueError(f"--time {error}") from error
        if limit > LONGEST:
            raise ValueError(f"--time {self.time} is more than a year; lower it")
        if self.grace >= limit:
            raise ValueError(
                f"--grace {self.grace} is not below the {limit:,} seconds of --time {self.time}: a "
                f"run would be stopped before it began; raise --time or lower --grace"
            )

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        return seconds_of(self.time)
