"""Which scheduler takes the jobs."""

from __future__ import annotations

from kava.cluster.local import Local
from kava.cluster.pbs import Pbs
from kava.cluster.schedulers import Scheduler
from kava.cluster.slurm import Slurm
from kava.errors import KavaError
from kava.machine.scheduler import scheduler_installed

SUBMITS_TO = ("slurm", "pbs")
"""The schedulers that jobs are written for."""


def detect_engine() -> str | None:
    """The scheduler of this machine, if jobs can be written for it; None without one."""
    found = scheduler_installed()
    return found.name if found is not None and found.name in SUBMITS_TO else None


def scheduler_of(engine: str | None) -> tuple[str, Scheduler]:
    """A scheduler by its name; None: the one of this machine.

    Raises:
        KavaError: there is none, or one that jobs are not written for.

    Example:
        >>> scheduler_of("local")[0]
        'local'
    """
    name = engine or detect_engine()
    if name is None:
        other = scheduler_installed()
        if other is not None:
            raise KavaError(
                f"the scheduler of this machine is {other.title} ({other.reason}), and jobs are "
                f"written for Slurm and PBS: take --engine local inside a job of it"
            )
        raise KavaError(
            "there is no scheduler on this machine (no sbatch, no qsub): submit from a login node "
            "of the cluster, or take --engine local"
        )
    known: dict[str, Scheduler] = {"slurm": Slurm(), "pbs": Pbs(), "local": Local()}
    return name, known[name]
