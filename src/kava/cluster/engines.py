"""Which scheduler takes the jobs."""

from __future__ import annotations

from kava.cluster.local import Local
from kava.cluster.pbs import Pbs
from kava.cluster.programs import has
from kava.cluster.schedulers import Scheduler
from kava.cluster.slurm import Slurm
from kava.errors import KavaError


def detect_engine() -> str | None:
    """The scheduler whose programs are on this machine; None without one.

    Slurm goes first, since its packages can bring a `qsub` of their own.
    """
    return next((name for name, p in (("slurm", "sbatch"), ("pbs", "qsub")) if has(p)), None)


def scheduler_of(engine: str | None) -> tuple[str, Scheduler]:
    """A scheduler by its name; None: the one of this machine.

    Raises:
        KavaError: there is none.

    Example:
        >>> scheduler_of("local")[0]
        'local'
    """
    name = engine or detect_engine()
    if name is None:
        raise KavaError(
            "there is no scheduler on this machine (no sbatch, no qsub): submit from a login node "
            "of the cluster, or take --engine local"
        )
    known: dict[str, Scheduler] = {"slurm": Slurm(), "pbs": Pbs(), "local": Local()}
    return name, known[name]
