"""Studies as jobs of a real Slurm: time limits, signals, requeued tasks, the report behind them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cluster import fakes
from cluster.real import last_step, rows, same_as_alone, small, stops, wait_until
from kava.cli import run
from kava.cluster.record import last_submission
from kava.cluster.slurm import Slurm
from kava.commands.cluster import main
from kava.commands.study import main as study
from one_line import refusal
from study.test_plan import GOOD, written

STEPS = 200
"""Of a run: enough for two signals before its end on a quick machine."""


def states(out: Path) -> dict[int | str, str]:
    jobs = Slurm().jobs(last_submission(out), out)
    return {key: job.state for key, job in jobs.items()}


def warn(array: str, number: int) -> None:
    """Send a task what Slurm sends ahead of the limit (--signal=B:USR1@120)."""
    # it arrives at once, and 22.05 answers by an error, after which scancel would send it again
    asked = ["scancel", "--signal=USR1", "--batch", f"{array}_{number}"]
    subprocess.Popen(["timeout", "2", *asked], stderr=subprocess.DEVNULL)


def submit(plan: Path, *flags: str) -> int:
    return run(main, ["submit", str(plan), "--output_dir", "out", "--engine", "slurm", *flags])


@pytest.mark.slow
def test_a_study_whose_jobs_all_meet_two_limits_ends_as_if_run_in_one_go(
    real_slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meet_two_limits(real_slurm, capsys, seeds=3)


def meet_two_limits(folder: Path, capsys: pytest.CaptureFixture[str], *, seeds: int) -> None:
    plan, out = written(folder, small(STEPS)), folder / "out"
    chosen = ("--seeds", *map(str, range(seeds)))
    assert submit(plan, "--time", "30", "--max_tasks", "2", *chosen) == 0
    last = last_submission(out)
    assert len(last.tasks) == 2 * seeds
    assert "out is submitted already" in refused(plan, capsys)
    waiting = {(number, limit) for number in range(len(last.tasks)) for limit in (0, 1)}

    def push() -> bool:
        for number, limit in sorted(waiting):
            arm, seed = last.tasks[number]
            met = stops(out, f"{arm}-{seed}")
            step = last_step(out / f"runs/{arm}/seed-{seed}")
            if len(met) == limit and step >= (met[-1] if met else 0) + 3:
                warn(last.runs, number)
                waiting.remove((number, limit))
        return not waiting

    wait_until(push)
    wait_until(lambda: states(out).get("report") == "completed")
    for arm, seed in last.tasks:
        first, second = stops(out, f"{arm}-{seed}")
        assert 0 < first < second < STEPS
    assert run(main, ["status", "out"]) == 0
    assert f"{2 * seeds} finished" in capsys.readouterr().out
    assert list(out.rglob("*.html"))
    same_as_alone(plan, out, folder / "alone", *chosen)
    assert run(study, ["status", "out"]) == 0
    assert capsys.readouterr().out.count("finished") >= 2 * seeds


def refused(plan: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    argv = ["submit", str(plan), "--output_dir", "out", "--engine", "slurm", "--time", "30"]
    return refusal(main, argv, capsys)


@pytest.mark.slow
def test_slurm_warns_a_run_ahead_of_the_limit_and_it_goes_on_in_the_next_job(
    real_slurm: Path,
) -> None:
    """The limit itself: Slurm sends the signal by its own clock, 50 to 80 s after the start."""
    plan, out = written(real_slurm, small(1_000_000)), real_slurm / "out"
    only = ("--arms", "flat", "--seeds", "0")
    assert submit(plan, "--time", "2", "--grace", "40", "--report", "none", *only) == 0
    wait_until(lambda: len({*stops(out, "flat-0")} - {0}) == 2 or states(out)[0] == "failed")
    if states(out)[0] == "failed":
        said = (out / "cluster/logs/flat-0.err").read_text()
        assert "three time limits in a row" in said
        pytest.skip("this machine is too busy: a run does not begin within a job's two minutes")
    *_, last = stops(out, "flat-0")
    wait_until(lambda: last_step(out / "runs/flat/seed-0") > last)
    assert run(main, ["cancel", "out"]) == 0


@pytest.mark.slow
def test_a_run_whose_node_dies_goes_on_from_its_last_checkpoint(real_slurm: Path) -> None:
    plan = written(real_slurm, small(120, base__save_steps=20))
    out, only = real_slurm / "out", ("--arms", "flat", "--seeds", "0")
    assert submit(plan, "--time", "30", "--report", "none", *only) == 0
    folder = out / "runs/flat/seed-0"
    wait_until(lambda: last_step(folder) > 30)
    last = last_submission(out)
    saved = list(folder.glob("checkpoint-*"))
    assert saved
    # as after the death of a node: no signal that a program could act on, and the task again
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if f"{out}/plan.yaml".encode() in (place / "cmdline").read_bytes():
                os.kill(int(place.name), signal.SIGKILL)
    wait_until(lambda: states(out)[0] != "running")
    assert not (folder / "result.json").exists()
    assert saved[0].is_dir()
    subprocess.run(["scontrol", "requeue", f"{last.runs}_0"], check=True)
    wait_until(lambda: states(out).get(0) == "completed")
    assert stops(out, "flat-0") == []
    same_as_alone(plan, out, real_slurm / "alone", *only)


def test_a_partition_and_an_account_of_a_real_slurm_are_checked(
    real_slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = written(real_slurm, GOOD)
    argv = ["submit", str(plan), "--output_dir", "out", "--engine", "slurm"]
    line = refusal(main, [*argv, "--partition", "tset"], capsys)
    assert "'tset' does not exist (did you mean 'test'?): the cluster has test, short" in line
    line = refusal(main, [*argv, "--partition", "short", "--time", "1:00:00"], capsys)
    assert "--time 1:00:00 is more than the 00:05:00 of partition 'short'" in line
    line = refusal(main, [*argv, "--time", "30", "--mem", "900T"], capsys)
    assert "sbatch refused: " in line
    assert not (real_slurm / "out/cluster/jobs.json").exists()


def test_a_real_array_runs_its_tasks_and_its_report_and_is_asked_for(
    real_slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for kava in the jobs: two limits each, then the end."""
    plan, out = written(real_slurm, small(4)), real_slurm / "out"
    fakes.install(real_slurm, monkeypatch, {})
    venv = str(fakes.environment(real_slurm))
    assert submit(plan, "--time", "10", "--venv", venv, "--seeds", "0") == 0
    last = last_submission(out)
    for _ in range(2):
        for number, (arm, seed) in enumerate(last.tasks):
            ready = out / f"runs/{arm}/seed-{seed}/ready"
            wait_until(ready.exists, 3)
            ready.unlink()
            warn(last.runs, number)
    capsys.readouterr()
    assert run(main, ["status", "out"]) == 0
    assert f"{last.runs}_0" in capsys.readouterr().out
    wait_until(lambda: states(out).get("report") == "completed", 3)
    assert (real_slurm / "reported").read_text().split() == ["report", str(out)]
    assert stops(out, "flat-0") == stops(out, "wrong-0") == [10, 20]


def test_a_cancelled_array_saves_and_its_report_is_not_written(
    real_slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = written(real_slurm, small(4)), real_slurm / "out"
    fakes.install(real_slurm, monkeypatch, {})
    venv = str(fakes.environment(real_slurm))
    assert submit(plan, "--time", "10", "--venv", venv, "--seeds", "0", "--arms", "flat") == 0
    wait_until((out / "runs/flat/seed-0/ready").exists, 3)
    assert run(main, ["cancel", "out"]) == 0
    wait_until(lambda: states(out).get(0) == "cancelled", 3)
    wait_until((out / "runs/flat/seed-0/checkpoint-10").is_dir, 1)
    assert not (real_slurm / "reported").exists()


def test_a_study_goes_through_qsub_and_its_tasks_are_submitted_again(
    real_slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PBS scripts by the `qsub` of Slurm, with a stand-in for kava; three seconds to a limit."""
    if shutil.which("qsub") is None:
        pytest.skip("there is no qsub: install slurm-wlm-torque")
    plan, out = written(real_slurm, small(4)), real_slurm / "out"
    fakes.install(real_slurm, monkeypatch, {})
    venv = str(fakes.environment(real_slurm))
    # this qsub hands on the environment with -V alone, as that of PBS does
    lines = [f"export FAKE={real_slurm}", f"export SLURM_CONF={os.environ['SLURM_CONF']}"]
    argv = ["submit", str(plan), "--output_dir", "out", "--engine", "pbs", "--seeds", "0"]
    argv += ["--time", "1", "--grace", "57", "--venv", venv]
    assert run(main, [*argv, *(word for line in lines for word in ("--prologue", line))]) == 0
    assert "submitted to pbs as " in capsys.readouterr().out
    wait_until((real_slurm / "reported").is_file, 5)
    assert stops(out, "flat-0") == stops(out, "wrong-0") == [10, 20]
    again = (out / "cluster/resubmitted").read_text().splitlines()
    assert sorted(line.split()[0] for line in again) == ["0", "0", "1", "1"]
    assert run(main, ["status", "out"]) == 0
    assert "completed" in capsys.readouterr().out


KAVA = """
echo "$*" >> "$FAKE/calls"
trap 'mkdir -p outputs/a/checkpoint-3; exit 138' USR1
if [ "$(wc -l < "$FAKE/calls")" = 2 ]; then exit 0; fi
touch "$FAKE/ready"
while :; do sleep 0.05; done
"""


def test_any_command_in_a_job_goes_on_in_the_next_one(
    real_slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(real_slurm, monkeypatch, {"kava": KAVA})
    script = str(Path(__file__).parents[2] / "scripts/in_a_job.sh")
    command = ["kava", "train", "--output_dir", "outputs/a", "--lr", "1e-3"]
    asked = ["sbatch", "--parsable", "--time=10", script, *command]
    job = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    wait_until((real_slurm / "ready").exists, 3)
    subprocess.run(
        ["timeout", "2", "scancel", "--signal=USR1", "--batch", job],
        capture_output=True,
        check=False,
    )
    calls = real_slurm / "calls"
    wait_until(lambda: len(calls.read_text().splitlines()) == 2, 3)
    first = "train --output_dir outputs/a --lr 1e-3"
    assert calls.read_text().splitlines() == [first, f"{first} --resume"]
    state = ["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"]
    wait_until(
        lambda: (
            "COMPLETED" in subprocess.run(state, capture_output=True, text=True, check=False).stdout
        )
    )


@pytest.mark.slow
def test_several_processes_of_one_job_save_together_and_go_on(
    real_slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("OUTPUT_DIR", "several")
    script = str(Path(__file__).parents[2] / "scripts/run_multinode.sh")
    here = ["--nodes=1", "--ntasks-per-node=2", "--gres=none", "--time=30"]
    flags = ["--model_name", "kava/shell-llama", "--dataset_name", "kava/shell-game?num_train=64"]
    flags += ["--target_len", "3", "--max_steps", "150", "--logging_steps", "1", "--device", "cpu"]
    flags += ["--batch_size", "4", "--save_steps", "10000", "--max_length", "64", "--no_progress"]
    asked = ["sbatch", "--parsable", *here, script, *flags]
    job = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    folder = real_slurm / "several"
    wait_until(lambda: last_step(folder) > 10)
    subprocess.run(
        ["timeout", "2", "scancel", "--signal=USR1", "--batch", job],
        capture_output=True,
        check=False,
    )
    state = ["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"]

    def is_over() -> bool:
        said = subprocess.run(state, capture_output=True, text=True, check=False).stdout
        return said.strip() in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")

    wait_until(is_over)
    said = (real_slurm / f"kava-multinode-{job}.out").read_text()
    assert "stopped by SIGUSR1" in said, said
    assert last_step(folder) == 150, said
    assert [row["step"] for row in rows(folder) if "loss" in row] == list(range(1, 151))


@pytest.mark.slow
def test_a_job_sees_what_it_was_given(real_slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    script = str(Path(__file__).parents[2] / "scripts/check_gpu_node.sh")
    share = ["--time=10", "--ntasks=2", "--cpus-per-task=1", "--mem=3000", "--partition=test"]
    asked = ["sbatch", "--parsable", *share, script, "--json"]
    job = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    said = real_slurm / f"kava-env-{job}.out"
    wait_until(lambda: said.is_file() and said.read_text().endswith("}\n"), 3)
    seen = json.loads(said.read_text())
    assert seen["scheduler"] == {"name": "slurm", "in_job": True, "reason": f"SLURM_JOB_ID={job}"}
    left = seen["job"].pop("left")
    assert seen["job"] == {
        "job": job,
        "queue": "test",
        "nodes": 1,
        "processes": 2,
        "cores": 2,
        "memory": 3000 * 2**20,
        "gpus": None,
        "limit": 600,
        "notes": [],
    }
    assert 0 < left <= 600
    assert seen["memory"]["available"] < seen["memory"]["limit"] == 3000 * 2**20
