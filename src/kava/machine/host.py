"""Cores and memory that this process may really use, and what keeps it from the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from kava.machine.allocation import Allocation, read_allocation
from kava.machine.cgroups import PROC, core_groups, memory_groups, whole_cores
from kava.machine.scheduler import find_scheduler

MEMINFO = Path("/proc/meminfo")


class HostCores(NamedTuple):
    """Cores of this host.

    Attributes:
        total: of the host.
        usable: by this process.
        reason: what limits it; empty if nothing does.
    """

    total: int
    usable: int
    reason: str


class HostMemory(NamedTuple):
    """Main memory of this host, in bytes.

    Attributes:
        total: of the host.
        limit: that this process shares; the total where nothing limits it.
        available: to this process now.
        reason: what limits what is available; empty if only other processes do.
    """

    total: int
    limit: int
    available: int
    reason: str


def cores_here(proc: Path = PROC) -> HostCores:
    """The cores that this process may use, by its affinity and by the quota of its group.

    Args:
        proc: the folder of the process.
    """
    total = os.cpu_count() or 1
    usable, reason = total, ""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        if allowed < usable:
            usable, reason = allowed, "its affinity"
    for group in core_groups(proc):
        if whole_cores(group.cores) < usable:
            usable, reason = whole_cores(group.cores), str(group.file)
    return HostCores(total, usable, reason)


def memory_here(job: Allocation | None = None, proc: Path = PROC) -> HostMemory:
    """The memory that this process may use: of the host, its groups, its job, and `ulimit -v`.

    Args:
        job: what its job was given; some schedulers end a job that takes more, without any group.
        proc: the folder of the process.
    """
    total, available = _of_host()
    limit, reason = total, ""
    limits = [(one.limit, one.free, str(one.file)) for one in memory_groups(proc)]
    if job is not None and job.memory is not None:
        limits.append((job.memory, job.memory - resident_bytes(), f"the memory of job {job.job}"))
    addresses = _address_limit()
    if addresses is not None:
        limits.append((addresses, addresses - resident_bytes("VmSize"), "ulimit -v"))
    for most, free, why in limits:
        limit = min(limit, most)
        if max(free, 0) < available:
            available, reason = max(free, 0), why
    return HostMemory(total, limit, available, reason)


def available_bytes() -> int:
    """Bytes of main memory that this process may still take."""
    return memory_here(read_allocation(find_scheduler())).available


def resident_bytes(field: str = "VmRSS") -> int:
    """Memory of this process, from Linux's /proc; 0 where the system does not tell.

    Args:
        field: "VmRSS" resident now, "VmHWM" at most; "VmSize" of addresses.
    """
    status = PROC / "status"
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _of_host() -> tuple[int, int]:
    """Bytes of the host, and those that are available."""
    if MEMINFO.exists():
        rows = (line.split() for line in MEMINFO.read_text().splitlines())
        kilobytes = {row[0]: int(row[1]) for row in rows if len(row) > 1}
        if "MemAvailable:" in kilobytes:
            return 1024 * kilobytes["MemTotal:"], 1024 * kilobytes["MemAvailable:"]
    try:
        import psutil  # accelerate brings it

        found = psutil.virtual_memory()
        return int(found.total), int(found.available)
    except ImportError:
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page


def _address_limit() -> int | None:
    """The limit on addresses (`ulimit -v`), which Grid Engine sets; None without one."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
