"""What a job was given: nodes, processes, cores, memory, GPUs and time.

Read from the variables that the scheduler sets. What it does not tell there is asked of its own
program (`squeue`, `qstat`), and stays unknown where that does not answer either.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kava.inputs import read_text
from kava.machine.durations import seconds_of
from kava.machine.programs import call_or_none
from kava.machine.scheduler import FoundScheduler

_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?[bw])?", re.IGNORECASE)
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass
class Allocation:
    """The share of a job; None where the scheduler does not tell.

    Attributes:
        job: its id.
        queue: partition or queue.
        nodes: how many.
        processes: of all nodes.
        cores: on this node.
        memory: bytes on this node.
        gpus: on this node.
        limit: seconds that the job may run.
        left: seconds until then.
        notes: what could not be read, in a line each.
    """

    job: str
    queue: str | None = None
    nodes: int | None = None
    processes: int | None = None
    cores: int | None = None
    memory: int | None = None
    gpus: int | None = None
    limit: int | None = None
    left: int | None = None
    notes: list[str] = field(default_factory=list)


def size_of(text: str, unit: str = "") -> int | None:
    """A size as schedulers write it, in bytes; None of another text.

    Args:
        text: a number with or without a unit.
        unit: of a number without one.

    Example:
        >>> size_of("16gb"), size_of("4096", "m"), size_of("much")
        (17179869184, 4294967296, None)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    return int(float(found[1]) * _UNITS[found[2].lower() or unit])


def read_allocation(
    found: FoundScheduler, environ: Mapping[str, str] | None = None
) -> Allocation | None:
    """The share of the job that this process is in; None outside of a job.

    Args:
        found: the scheduler.
        environ: its variables; None: of this process.
    """
    if not found.job:
        return None
    readers = {
        "slurm": _slurm,
        "lsf": _lsf,
        "cobalt": _cobalt,
        "sge": _sge,
        "pbs": _pbs,
        "kubernetes": _kubernetes,
    }
    return readers[found.name](_Variables(os.environ if environ is None else environ))


class _Variables:
    """Variables of a job; what is not a number is noted and left out."""

    def __init__(self, environ: Mapping[str, str]):
        self.environ = environ
        self.notes: list[str] = []

    def text(self, *names: str) -> str | None:
        """The first that is set."""
        return next((self.environ[name] for name in names if self.environ.get(name)), None)

    def number(self, *names: str) -> int | None:
        """The first that is set, as a whole number."""
        name = next((name for name in names if self.environ.get(name)), None)
        if name is None:
            return None
        # Slurm writes "4(x2)" for nodes with equal shares
        found = re.fullmatch(r"(\d+)(?:\(x\d+\))?", self.environ[name].strip())
        if found is None:
            self.notes.append(f"{name}={self.environ[name]!r} is no whole number: it is left out")
            return None
        return int(found[1])

    def lines(self, name: str) -> list[str]:
        """The lines of the file that a variable names."""
        path = self.environ.get(name)
        if not path:
            return []
        try:
            return [line for line in read_text(path).splitlines() if line.strip()]
        except (OSError, ValueError):
            self.notes.append(f"{name}={path!r} cannot be read: it is left out")
            return []


def _slurm(of: _Variables) -> Allocation:
    cores = of.number("SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK")
    memory, each = of.number("SLURM_MEM_PER_NODE"), of.number("SLURM_MEM_PER_CPU")
    if not memory and each and cores:
        memory = each * cores
    job = of.text("SLURM_JOB_ID") or ""
    ends, began = of.number("SLURM_JOB_END_TIME"), of.number("SLURM_JOB_START_TIME")
    limit = None if ends is None or began is None else ends - began
    left = None if ends is None else max(ends - round(time.time()), 0)
    if ends is None:
        words = (call_or_none(["squeue", "-h", "-j", job, "-o", "%l %L"]) or "").split()
        if len(words) == 2:
            limit, left = (_seconds(word) for word in words)
    return Allocation(
        job,
        queue=of.text("SLURM_JOB_PARTITION"),
        nodes=of.number("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
        processes=of.number("SLURM_NTASKS", "SLURM_NPROCS"),
        cores=cores,
        memory=memory * 2**20 if memory else None,  # 0: all of the node
        gpus=of.number("SLURM_GPUS_ON_NODE"),
        limit=limit,
        left=left,
        notes=of.notes,
    )


def _pbs(of: _Variables) -> Allocation:
    job = of.text("PBS_JOBID") or ""
    hosts = of.lines("PBS_NODEFILE")
    told = dict(re.findall(r"(?<!\S)(\S+) = (\S+)", call_or_none(["qstat", "-f", job]) or ""))
    nodes = len(set(hosts)) or of.number("PBS_NUM_NODES")
    limit = _seconds(told.get("Resource_List.walltime")) or of.number("PBS_WALLTIME")
    used = _seconds(told.get("resources_used.walltime")) or 0
    memory = size_of(told["Resource_List.mem"]) if "Resource_List.mem" in told else None
    return Allocation(
        job,
        queue=of.text("PBS_QUEUE"),
        nodes=nodes,
        processes=len(hosts) or of.number("PBS_NP"),
        cores=of.number("NCPUS", "PBS_NUM_PPN"),
        memory=memory if nodes == 1 else None,  # told of all nodes together
        limit=limit,
        left=None if limit is None or not told else max(limit - used, 0),
        notes=of.notes,
    )


def _lsf(of: _Variables) -> Allocation:
    words = (of.text("LSB_MCPU_HOSTS") or "").split()
    slots = {host: int(count) for host, count in zip(words[::2], words[1::2]) if count.isdigit()}
    return Allocation(
        of.text("LSB_JOBID") or "",
        queue=of.text("LSB_QUEUE"),
        nodes=len(slots) or None,
        processes=of.number("LSB_DJOB_NUMPROC") or sum(slots.values()) or None,
        cores=_of_this_host(slots),
        notes=of.notes,
    )


def _sge(of: _Variables) -> Allocation:
    job = of.text("JOB_ID") or ""
    rows = [line.split() for line in of.lines("PE_HOSTFILE")]
    slots = {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
    asked = call_or_none(["qstat", "-j", job]) or ""
    resources = dict(re.findall(r"(?<!\w)(\w+)=([^,\s]+)", asked))
    total = of.number("NSLOTS")
    return Allocation(
        job,
        queue=of.text("QUEUE"),
        nodes=of.number("NHOSTS"),
        processes=total,
        cores=_of_this_host(slots) or total,
        limit=_seconds(resources.get("h_rt")),
        notes=of.notes,
    )


def _cobalt(of: _Variables) -> Allocation:
    ends, began = of.number("COBALT_ENDTIME"), of.number("COBALT_STARTTIME")
    return Allocation(
        of.text("COBALT_JOBID") or "",
        nodes=of.number("COBALT_JOBSIZE") or len(of.lines("COBALT_NODEFILE")) or None,
        limit=None if ends is None or began is None else ends - began,
        left=None if ends is None else max(ends - round(time.time()), 0),
        notes=of.notes,
    )


def _kubernetes(of: _Variables) -> Allocation:
    pod = of.text("HOSTNAME") or socket.gethostname()
    space = read_text(_NAMESPACE).strip() if _NAMESPACE.is_file() else None
    return Allocation(pod, queue=space, nodes=1, notes=of.notes)


def _of_this_host(slots: Mapping[str, int]) -> int | None:
    """The slots of this host; of a single one, whatever it is called."""
    if len(slots) == 1:
        return next(iter(slots.values()))
    here = socket.gethostname().partition(".")[0]
    return next((n for host, n in slots.items() if host.partition(".")[0] == here), None)


def _seconds(text: str | None) -> int | None:
    """A time limit in seconds; a number alone is seconds. None where there is no limit."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        return seconds_of(text)
    except ValueError:  # UNLIMITED, NOT_SET, INVALID
        return None
