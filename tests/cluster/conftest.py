"""A real Slurm for the tests that ask for it, where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import fakes

ONE_NODE = Path(__file__).with_name("one_node.sh")
NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")


def missing() -> str:
    """What keeps a Slurm from starting here; empty if nothing does."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if absent:
        return f"there is no {', '.join(absent)}: install slurm-wlm and munge"
    return "" if os.getuid() == 0 else "Slurm for tests is started by root"


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a Slurm whose only node is this machine."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (one, other)]
    done = subprocess.run(
        ["bash", ONE_NODE, "up", folder, *ports],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield folder / "slurm.conf"
    subprocess.run(["bash", ONE_NODE, "down", folder], check=False)


@pytest.fixture
def real_slurm(one_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from, with the programs of Slurm asking that one."""
    monkeypatch.setenv("SLURM_CONF", str(one_node))
    monkeypatch.setenv("PYTHONPATH", str(ONE_NODE.parents[2] / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster with three partitions, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return fakes.install(tmp_path / "fake", monkeypatch, fakes.SLURM)
