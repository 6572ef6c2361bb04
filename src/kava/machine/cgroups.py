"""Limits that control groups of Linux set for this process, in both versions of the interface.

A container, a job of a scheduler and a service of systemd are such groups. A limit holds for all
groups below it, so that every group from this process's own up to the root is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PROC = Path("/proc/self")
UNLIMITED = 2**60
"""Version 1 writes about 2 to the power of 63 for no limit."""


class MemoryGroup(NamedTuple):
    """The memory of a group that has a limit.

    Attributes:
        limit: bytes.
        free: bytes that its processes may still take; pages of files that can be dropped are free.
        file: that holds the limit.
    """

    limit: int
    free: int
    file: Path


def memory_groups(proc: Path = PROC) -> Iterator[MemoryGroup]:
    """The groups around this process that limit memory.

    Args:
        proc: the folder of the process.
    """
    for version, folder in _groups("memory", proc):
        limit_name, used_name, pages = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        limit = _number(folder / limit_name)
        if limit is None or limit >= UNLIMITED:
            continue
        used = _number(folder / used_name) or 0
        dropped = _fields(folder / "memory.stat").get(pages, 0)
        free = max(limit - max(used - dropped, 0), 0)
        yield MemoryGroup(limit, free, folder / limit_name)


class CoreGroup(NamedTuple):
    """The processor time of a group that has a quota.

    Attributes:
        cores: how many cores' time its processes share; may be a fraction.
        file: that holds the quota.
    """

    cores: float
    file: Path


def core_groups(proc: Path = PROC) -> Iterator[CoreGroup]:
    """The groups around this process that limit processor time.

    Args:
        proc: the folder of the process.
    """
    for version, folder in _groups("cpu", proc):
        if version == 2:
            file = folder / "cpu.max"
            words = _text(file).split()
            quota, period = (words[0], words[1]) if len(words) == 2 else ("max", "0")
        else:
            file = folder / "cpu.cfs_quota_us"
            quota, period = _text(file).strip(), _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            yield CoreGroup(int(quota) / int(period), file)


def whole_cores(cores: float) -> int:
    """The threads that a share of processor time keeps busy, at least one.

    Example:
        >>> whole_cores(2.5), whole_cores(0.5)
        (2, 1)
    """
    return max(math.floor(cores), 1)


def _groups(controller: str, proc: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of the groups around this process, its own first."""
    paths: dict[str, str] = {}
    for entry in _text(proc / "cgroup").splitlines():
        number, names, path = entry.split(":", 2)
        paths.update(dict.fromkeys(names.split(",") if number != "0" else ["2"], path))
    for line in _text(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            version, key = 2, "2"
        elif kind == "cgroup" and controller in options.split(","):
            version, key = 1, controller
        else:
            continue
        if key not in paths:
            continue
        top = Path(mount)
        # of a container that sees a part of the tree, root is where that part begins
        inside = PurePosixPath(paths[key])
        if inside.is_relative_to(root):
            inside = inside.relative_to(root)
        folder = top / str(inside).lstrip("/")
        for one in (folder, *folder.parents):
            if one.is_dir():
                yield version, one
            if one == top:
                break


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:  # no such file, or not for this user
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _fields(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
