"""The scheduler and the share of a job, from the variables that each of them sets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster import fakes
from kava.cluster.engines import detect_engine, scheduler_of
from kava.errors import KavaError
from kava.machine import allocation
from kava.machine.allocation import Allocation, read_allocation, size_of
from kava.machine.programs import call_or_none
from kava.machine.scheduler import SCHEDULERS, find_scheduler

GIB = 2**30
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_MEM_PER_CPU": "4096",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_JOB_START_TIME": "1000",
    "SLURM_JOB_END_TIME": "8200",
}
JOBS: dict[str, tuple[dict[str, str], Allocation]] = {
    "slurm": (
        SLURM,
        Allocation("4711", "gpu", 2, 8, 16, 64 * GIB, 4, limit=7200, left=0),
    ),
    "lsf": (
        {
            "LSB_JOBID": "12",
            "LSB_QUEUE": "long",
            "LSB_MCPU_HOSTS": "node1 4 node2 2",
            "LSB_DJOB_NUMPROC": "6",
        },
        Allocation("12", "long", 2, 6, 4),
    ),
    "cobalt": (
        {
            "COBALT_JOBID": "77",
            "COBALT_JOBSIZE": "3",
            "COBALT_STARTTIME": "1000",
            "COBALT_ENDTIME": "4600",
        },
        Allocation("77", nodes=3, limit=3600, left=0),
    ),
    "sge": (
        {
            "JOB_ID": "9",
            "SGE_TASK_ID": "undefined",
            "QUEUE": "all.q",
            "NHOSTS": "2",
            "NSLOTS": "6",
            "PE_HOSTFILE": "node1.site 4 all.q UNDEFINED\nnode2.site 2 all.q UNDEFINED\n",
        },
        Allocation("9", "all.q", 2, 6, 4, limit=5400),
    ),
    "pbs": (
        {
            "PBS_JOBID": "5.server",
            "PBS_QUEUE": "workq",
            "NCPUS": "8",
            "PBS_NODEFILE": "node1\nnode1\n",
        },
        Allocation("5.server", "workq", 1, 2, 8, 16 * GIB, limit=3600, left=3000),
    ),
    "kubernetes": (
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-0"},
        Allocation("train-0", nodes=1),
    ),
}
QSTAT = """case "$1" in
-f) echo "Job Id: $2"; echo "    Resource_List.mem = 16gb"
    echo "    Resource_List.walltime = 01:00:00"; echo "    resources_used.walltime = 00:10:00" ;;
-j) echo "hard resource_list:         h_rt=5400,h_vmem=4G" ;;
esac"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH without the programs of any scheduler, and a host that is called node1."""
    (tmp_path / "bin").mkdir()
    for name in ("bash", "cat", "echo"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(allocation.socket, "gethostname", lambda: "node1")
    return tmp_path


def with_files(variables: dict[str, str], folder: Path) -> dict[str, str]:
    """The variables, with the files that two of them name."""
    found = dict(variables)
    for name in {"PBS_NODEFILE", "PE_HOSTFILE"} & set(found):
        (folder / name).write_text(found[name])
        found[name] = str(folder / name)
    return found


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_recognised_and_its_share_is_read(
    name: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(bare, monkeypatch, {"qstat": QSTAT})
    variables, share = JOBS[name]
    environ = with_files(variables, bare)
    found = find_scheduler(environ)
    assert (found.name, found.job) == (name, True)
    assert read_allocation(found, environ) == share


def test_every_scheduler_has_such_a_test() -> None:
    assert {one.name for one in SCHEDULERS} == set(JOBS)


@pytest.mark.parametrize(
    ("programs", "name", "engine"),
    [
        (["sbatch"], "slurm", "slurm"),
        (["sbatch", "qsub", "bsub"], "slurm", "slurm"),
        (["qsub", "qstat"], "pbs", "pbs"),
        (["qsub", "qconf"], "sge", None),
        (["qsub", "cqsub"], "cobalt", None),
        (["bsub"], "lsf", None),
        (["kubectl"], "local", None),
        ([], "local", None),
    ],
)
def test_outside_of_a_job_the_programs_tell(
    programs: list[str],
    name: str,
    engine: str | None,
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes.install(bare, monkeypatch, dict.fromkeys(programs, "exit 0"))
    found = find_scheduler({})
    assert (found.name, found.job) == (name, False)
    assert read_allocation(found, {}) is None
    assert detect_engine() == engine
    if engine is None:
        with pytest.raises(KavaError, match="--engine local") as refused:
            scheduler_of(None)
        assert (found.title in str(refused.value)) == (name != "local")


def test_the_job_goes_before_the_programs(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(bare, monkeypatch, {"sbatch": "exit 0"})
    assert find_scheduler(JOBS["lsf"][0]).name == "lsf"
    # Slurm in a pod of Kubernetes
    assert find_scheduler({**JOBS["kubernetes"][0], **SLURM}).name == "slurm"
    # not of Grid Engine: other programs set JOB_ID too
    assert find_scheduler({"JOB_ID": "9"}).name == "slurm"


def test_slurm_is_asked_for_a_limit_that_it_has_not_set(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {name: value for name, value in SLURM.items() if "TIME" not in name}
    found = find_scheduler(environ)
    share = read_allocation(found, environ)
    assert share is not None
    assert (share.limit, share.left) == (None, None)
    fakes.install(bare, monkeypatch, {"squeue": '[ "$3" = 4711 ] && echo "1-00:00:00 23:59:00"'})
    share = read_allocation(found, environ)
    assert share is not None
    assert (share.limit, share.left) == (86_400, 86_340)
    fakes.install(bare, monkeypatch, {"squeue": 'echo "UNLIMITED UNLIMITED"'})
    share = read_allocation(found, environ)
    assert share is not None
    assert (share.limit, share.left) == (None, None)


def test_the_time_that_is_left_is_counted_from_now(bare: Path) -> None:
    now = round(time.time())
    environ = {
        **SLURM,
        "SLURM_JOB_START_TIME": str(now - 60),
        "SLURM_JOB_END_TIME": str(now + 600),
    }
    share = read_allocation(find_scheduler(environ), environ)
    assert share is not None
    assert share.limit == 660
    assert share.left == pytest.approx(600, abs=30)


@pytest.mark.parametrize(
    ("variable", "value", "note"),
    [
        ("SLURM_NTASKS", "many", "SLURM_NTASKS='many' is no whole number: it is left out"),
        ("SLURM_MEM_PER_CPU", "4G", "SLURM_MEM_PER_CPU='4G' is no whole number: it is left out"),
    ],
)
def test_what_is_no_number_is_named_and_left_out(
    variable: str, value: str, note: str, bare: Path
) -> None:
    environ = {**SLURM, variable: value}
    share = read_allocation(find_scheduler(environ), environ)
    assert share is not None
    assert share.notes == [note]
    assert share.nodes == 2


def test_a_file_of_nodes_that_is_not_there_is_named(bare: Path) -> None:
    environ = {**JOBS["pbs"][0], "PBS_NODEFILE": "gone", "PBS_NUM_NODES": "3"}
    share = read_allocation(find_scheduler(environ), environ)
    assert share is not None
    assert share.notes == ["PBS_NODEFILE='gone' cannot be read: it is left out"]
    assert share.nodes == 3


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("16gb", "", 16 * GIB), ("16GiB", "", 16 * GIB), ("1048576kb", "", GIB), ("5", "", 5),
        ("4096", "m", 4 * GIB), ("1.5g", "", 1.5 * GIB), ("much", "", None), ("-1", "", None),
    ],
)  # fmt: skip
def test_sizes(text: str, unit: str, size: int | None) -> None:
    assert size_of(text, unit) == size


def test_a_program_that_is_not_there_says_nothing(bare: Path) -> None:
    assert call_or_none(["squeue"]) is None
