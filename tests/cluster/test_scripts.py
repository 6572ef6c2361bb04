"""The scripts of jobs: what they ask for, and how they meet signals and time limits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import fakes
from kava.cluster.engines import scheduler_of
from kava.cluster.options import JobOptions
from kava.cluster.scripts import render_scripts
from kava.machine.durations import clock, seconds_of

TASKS = [("flat", 0), ("wrong", 0), ("flat", 1)]


def written(folder: Path, engine: str, **options: Any) -> tuple[Path, str]:
    """The folder of a study with its scripts, and the text of that of the runs."""
    study = folder / "a study"
    for name in ("logs", "stops"):
        (study / "cluster" / name).mkdir(parents=True)
    chosen = JobOptions(engine=engine, **options)
    texts = render_scripts("a study", TASKS, study, chosen, scheduler_of(engine)[1])
    for path, text in texts.items():
        path.write_text(text)
    return study, next(iter(texts.values()))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("10:30", 630), ("08:00:00", 28800), ("2-00", 172800), ("1-12:30", 131400),
        ("1-00:00:01", 86401),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(clock(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "1:2:3:4", "1-", "-5", "1h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write minutes, HH:MM:SS or D-HH:MM:SS"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grace": 60, "time": "1"}, "--grace 60 is not below the 60 seconds of --time 1"),
        ({"partition": "a b"}, "--partition 'a b' holds a space"),
        ({"prologue": ["a\nb"]}, "is more than one line; repeat the flag"),
        ({"time": "tomorrow"}, "--time 'tomorrow' is no time"),
        ({"engine": "lsf"}, "is unknown; choose slurm, pbs, local"),
    ],
)
def test_options_that_would_break_a_script_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        JobOptions(**options)


def test_every_option_reaches_the_head_of_a_slurm_script(tmp_path: Path) -> None:
    _, text = written(
        tmp_path, "slurm", partition="gpu", account="lab", qos="high", gres="gpu:a100:1", cpus=8,
        mem="32G", time="02:00:00", grace=300, max_tasks=2, modules=["cuda/12", "gcc"],
        venv="/opt/my env", prologue=["export A=1", "export B=2"], directive=["--exclude=node7"],
    )  # fmt: skip
    head = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    assert head == [
        "--job-name=a_study", "--array=0-2%2", "--partition=gpu", "--account=lab", "--qos=high",
        "--gres=gpu:a100:1", "--cpus-per-task=8", "--mem=32G", "--time=02:00:00",
        "--signal=B:USR1@300", "--requeue", "--open-mode=append",
        f'--output="{tmp_path}/a study/cluster/logs/slurm-%A_%a.out"', "--exclude=node7",
    ]  # fmt: skip
    lines = text.splitlines()
    at = lines.index("module load cuda/12 gcc")
    assert lines[at : at + 4] == [
        "module load cuda/12 gcc", "source '/opt/my env'/bin/activate", "export A=1", "export B=2",
    ]  # fmt: skip
    assert "arms=(flat wrong flat)\nseeds=(0 0 1)\n" in text


def test_the_head_of_a_pbs_script(tmp_path: Path) -> None:
    options = {"partition": "workq", "account": "lab", "cpus": 4, "mem": "8gb", "gres": "gpu:2"}
    study, text = written(tmp_path, "pbs", **options)
    head = [line.removeprefix("#PBS ") for line in text.splitlines() if "#PBS" in line]
    assert head[:5] == [
        "-N a_study", "-q workq", "-A lab", "-l select=1:ncpus=4:mem=8gb:ngpus=2",
        "-l walltime=08:00:00",
    ]  # fmt: skip
    logs = f'#PBS -o "{tmp_path}/a study/cluster/logs/"'
    for name in ("runs.pbs", "report.pbs"):
        assert logs in (study / "cluster" / name).read_text().splitlines()
    assert "timeout --preserve-status --signal=USR1 28680 " in text
    other = JobOptions(engine="pbs", directive=["-l nodes=1:ppn=8:gpus=1"])
    head = scheduler_of("pbs")[1].run_head("s", other, tmp_path, 3)
    assert not any("select" in line for line in head), "one way to ask for nodes"


@pytest.mark.parametrize("engine", ["slurm", "pbs", "local"])
@pytest.mark.parametrize("requeue", [True, False])
def test_every_script_is_valid_shell(tmp_path: Path, engine: str, requeue: bool) -> None:
    study, _ = written(tmp_path, engine, requeue=requeue)
    scripts = sorted((study / "cluster").glob("r*.*"))
    assert len(scripts) == 2
    for path in scripts:
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A study whose jobs are a stand-in, and the command of one of its tasks."""
    fakes.install(tmp_path, monkeypatch, {})
    study, _ = written(tmp_path, "local", venv=str(fakes.environment(tmp_path)))
    return study, ["bash", str(study / "cluster" / "runs.sh"), "1"]


def signalled(study: Path, process: subprocess.Popen[bytes], signum: int) -> None:
    """Signal a job once its run is at work."""
    ready = study / "runs/wrong/seed-0/ready"
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ready.unlink()
    time.sleep(0.1)
    os.kill(process.pid, signum)


def test_a_run_meets_two_limits_and_finishes_in_the_third_job(job: Any) -> None:
    study, command = job
    process = subprocess.Popen(command)
    for _ in range(2):
        signalled(study, process, signal.SIGUSR1)
    assert process.wait(60) == 0
    assert (study / "cluster/stops/wrong-0").read_text() == "10\n20\n"
    assert len((study / "runs/wrong/seed-0/starts").read_text().split()) == 3
    assert not (study / "runs/flat").exists()


def test_three_limits_without_a_new_checkpoint_end_a_run(job: Any) -> None:
    study, command = job
    (study.parent / "stuck").touch()
    process = subprocess.Popen(command)
    for _ in range(3):
        signalled(study, process, signal.SIGUSR1)
    assert process.wait(60) == 1
    said = (study / "cluster/logs/wrong-0.err").read_text()
    assert "three time limits in a row came before anything behind step 0 was saved" in said


def test_a_cancelled_run_saves_and_is_not_done_again(job: Any) -> None:
    study, command = job
    process = subprocess.Popen(command)
    signalled(study, process, signal.SIGTERM)
    assert process.wait(60) == 143
    assert (study / "runs/wrong/seed-0/checkpoint-10").is_dir()
    assert not list((study / "cluster/stops").iterdir())
