"""Cores and memory within the limits of control groups, affinity, job and ulimit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kava.machine import host
from kava.machine.allocation import Allocation
from kava.machine.cgroups import core_groups, memory_groups
from kava.machine.host import cores_here, memory_here, resident_bytes
from kava.train.auto_batch import free_bytes

MIB = 2**20


def process(folder: Path, cgroup: str, *mounts: str) -> Path:
    """The folder of a process in /proc, with its groups and mounts."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text("21 1 8:1 / / rw - ext4 /dev/sda rw\n" + "".join(mounts))
    return proc


def mount(place: Path, kind: str, options: str = "rw", root: str = "/") -> str:
    return f"30 21 0:26 {root} {place} rw,nosuid shared:4 - {kind} cgroup {options}\n"


def written(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    return folder


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """A job's group with 300 MiB of 500 MiB taken, in a group with a limit of 4 GiB."""
    top = tmp_path / "sys"
    written(top / "job", memory__max=4096 * MIB, memory__current=100 * MIB, cpu__max="max 100000")
    written(
        top / "job/step",
        memory__max=500 * MIB,
        memory__current=400 * MIB,
        memory__stat=f"anon 1\ninactive_file {100 * MIB}",
        cpu__max="150000 100000",
    )
    return process(tmp_path, "0::/job/step\n", mount(top, "cgroup2"))


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """The same in version 1, seen from a container whose mounts begin at its own group."""
    memory, cpu = tmp_path / "sys/memory", tmp_path / "sys/cpu"
    written(
        memory,
        memory__limit_in_bytes=500 * MIB,
        memory__usage_in_bytes=400 * MIB,
        memory__stat=f"inactive_file 0\ntotal_inactive_file {100 * MIB}",
    )
    written(cpu, cpu__cfs_quota_us=150_000, cpu__cfs_period_us=100_000)
    return process(
        tmp_path,
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        mount(memory, "cgroup", "rw,memory", "/docker/abc"),
        mount(cpu, "cgroup", "rw,cpu,cpuacct", "/docker/abc"),
    )


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_limits_of_a_group(
    version: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc: Path = request.getfixturevalue(version)
    first = next(memory_groups(proc))
    assert (first.limit, first.free) == (500 * MIB, 200 * MIB)
    assert [one.cores for one in core_groups(proc)] == [1.5]
    monkeypatch.setattr(host, "_of_host", lambda: (8000 * MIB, 6000 * MIB))
    memory = memory_here(proc=proc)
    assert memory[:3] == (8000 * MIB, 500 * MIB, 200 * MIB)
    assert memory.reason == str(first.file)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores_here(proc)[:2] == (64, 1)
    assert "cpu" in cores_here(proc).reason


def test_the_tightest_group_counts_not_the_nearest(
    version_2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # others in the job leave 50 MiB, less than the step's own limit does
    written(tmp_path / "sys/job", memory__max=4096 * MIB, memory__current=4046 * MIB)
    monkeypatch.setattr(host, "_of_host", lambda: (8000 * MIB, 6000 * MIB))
    memory = memory_here(proc=version_2)
    assert (memory.limit, memory.available) == (500 * MIB, 50 * MIB)
    assert memory.reason == str(tmp_path / "sys/job/memory.max")


def test_a_group_below_that_of_the_container(tmp_path: Path) -> None:
    top = written(tmp_path / "sys")
    written(top / "step", memory__max=5, memory__current=2)
    proc = process(tmp_path, "0::/docker/abc/step\n", mount(top, "cgroup2", root="/docker/abc"))
    assert list(memory_groups(proc)) == [(5, 3, top / "step/memory.max")]


@pytest.mark.parametrize(
    ("limit", "quota"), [("max", "max 100000"), (2**63 - 4096, "max 100000"), ("", "")]
)
def test_no_limit(limit: object, quota: str, tmp_path: Path) -> None:
    top = written(tmp_path / "sys", memory__max=limit, memory__current=5, cpu__max=quota)
    proc = process(tmp_path, "0::/\n", mount(top, "cgroup2"))
    assert list(memory_groups(proc)) == []
    assert list(core_groups(proc)) == []
    assert memory_here(proc=proc).limit == memory_here(proc=proc).total


def test_a_system_without_groups(tmp_path: Path) -> None:
    assert list(memory_groups(tmp_path)) == []
    assert cores_here(tmp_path).usable >= 1


def test_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5})
    assert cores_here(tmp_path) == (64, 3, "its affinity")


def test_the_memory_of_a_job_counts_without_any_group(tmp_path: Path) -> None:
    job = Allocation("4711", memory=resident_bytes() + 100 * MIB)
    memory = memory_here(job, tmp_path)
    assert memory.limit == job.memory
    assert memory.available == pytest.approx(100 * MIB, abs=20 * MIB)
    assert memory.reason == "the memory of job 4711"
    assert memory_here(Allocation("4711", memory=1), tmp_path).available == 0


def test_a_limit_on_addresses_counts() -> None:
    program = (
        "import resource; from kava.machine.host import memory_here, resident_bytes;"
        f"most = resident_bytes('VmSize') + {300 * MIB};"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most)); print(*memory_here()[2:])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    available, reason = done.stdout.strip().split(" ", 1)
    assert int(available) == pytest.approx(300 * MIB, abs=20 * MIB)
    assert reason == "ulimit -v"


def test_the_search_for_a_batch_size_counts_the_limits(
    version_2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_of_host", lambda: (8000 * MIB, 6000 * MIB))
    monkeypatch.setattr(host.memory_here, "__defaults__", (None, version_2))
    assert free_bytes(torch.device("cpu")) == 200 * MIB
