"""Which scheduler is here: the one whose job this process is in, else the one whose programs are.

`kava env`, `kava cluster` and its checks ask this file, so that they answer alike.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

LOCAL = "local"
"""The name of no scheduler."""


class Signs(NamedTuple):
    """How a scheduler is recognised.

    Attributes:
        name: in `--engine` and in JSON.
        title: in a sentence.
        job: variables that all jobs of it have, of which the first holds the job's id.
        programs: of its login nodes; one of them is enough.
    """

    name: str
    title: str
    job: tuple[str, ...]
    programs: tuple[str, ...]


SCHEDULERS = (
    Signs("slurm", "Slurm", ("SLURM_JOB_ID",), ("sbatch",)),
    Signs("lsf", "LSF", ("LSB_JOBID",), ("bsub",)),
    Signs("cobalt", "Cobalt", ("COBALT_JOBID",), ("cqsub", "cqstat")),
    # JOB_ID alone is set by other programs too, such as Jenkins
    Signs("sge", "Grid Engine", ("JOB_ID", "SGE_TASK_ID"), ("qconf",)),
    Signs("pbs", "PBS", ("PBS_JOBID",), ("qsub",)),
    Signs("kubernetes", "Kubernetes", ("KUBERNETES_SERVICE_HOST",), ()),
)
"""In the order in which they are asked.

Slurm's packages, Grid Engine and Cobalt bring a `qsub` of their own, so that PBS comes behind them.
Kubernetes is last, since a scheduler may run in its pods; it is recognised from the inside alone,
as a `kubectl` says nothing of where this process runs.
"""


class FoundScheduler(NamedTuple):
    """A scheduler, and how it was recognised.

    Attributes:
        name: as in `SCHEDULERS`, or `LOCAL`.
        title: in a sentence.
        job: whether this process is in a job of it.
        reason: the variable or the program.
    """

    name: str
    title: str
    job: bool
    reason: str


def scheduler_of_job(environ: Mapping[str, str] | None = None) -> FoundScheduler | None:
    """The scheduler whose job this process is in; None outside of a job.

    Args:
        environ: the variables; None: of this process.

    Example:
        >>> scheduler_of_job({"SLURM_JOB_ID": "4711"}).reason
        'SLURM_JOB_ID=4711'
    """
    environ = os.environ if environ is None else environ
    for one in SCHEDULERS:
        if all(environ.get(name) for name in one.job):
            return FoundScheduler(one.name, one.title, True, f"{one.job[0]}={environ[one.job[0]]}")
    return None


def scheduler_installed() -> FoundScheduler | None:
    """The scheduler whose programs are on the PATH; None without one."""
    for one in SCHEDULERS:
        for program in one.programs:
            place = shutil.which(program)
            if place is not None:
                return FoundScheduler(one.name, one.title, False, f"{program} is {place}")
    return None


def find_scheduler(environ: Mapping[str, str] | None = None) -> FoundScheduler:
    """The scheduler of this process, of this machine, or none.

    Args:
        environ: as `scheduler_of_job` takes it.
    """
    found = scheduler_of_job(environ) or scheduler_installed()
    if found is not None:
        return found
    programs = ", ".join(program for one in SCHEDULERS for program in one.programs)
    return FoundScheduler(
        LOCAL, "none", False, f"no job's variables are set, and no {programs} is on the PATH"
    )
