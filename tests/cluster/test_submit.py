"""Submitting a study, and asking for its jobs: what is written, said, refused and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import fakes
from kava.cli import run
from kava.cluster.record import read_record
from kava.commands.cluster import main
from one_line import refusal
from study.test_plan import GOOD, changed, written

FAST = {"budget__steps": 4, "data__train": "kava/shell-game?num_train=64"}


def submit(folder: Path, *flags: str, values: dict[str, Any] = GOOD) -> list[str]:
    plan = written(folder, values)
    return ["submit", str(plan), "--output_dir", "out", "--engine", "slurm", *flags]


def calls(fake: Path) -> list[str]:
    path = fake / "calls"
    return path.read_text().splitlines() if path.is_file() else []


def test_a_study_is_locked_written_submitted_and_recorded(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, submit(tmp_path, "--arms", "flat", "structured", "--max_tasks", "3")) == 0
    out = tmp_path / "out"
    assert calls(slurm) == [
        f"sbatch --parsable {out}/cluster/runs.sbatch",
        f"sbatch --parsable --dependency=afterok:41 --kill-on-invalid-dep=yes "
        f"{out}/cluster/report.sbatch",
    ]
    (one,) = read_record(out)
    assert (one.engine, one.runs, one.report, one.limit) == ("slurm", "41", "42", 28800)
    assert one.tasks == (("flat", 0), ("structured", 0), ("flat", 1), ("structured", 1))
    assert "#SBATCH --array=0-3%3" in (out / "cluster/runs.sbatch").read_text()
    assert json.loads((out / "plan.lock.json").read_text())["plan"]["name"] == "small"
    said = capsys.readouterr().out
    assert "small: 4 runs, submitted to slurm as 41" in said
    assert "how long a step takes is not known" in said

    # the queue forgets jobs that ended: without a result they are lost, with one finished
    lines = [f"41|{n}|{state}|0:07|None" for n, state in enumerate(["RUNNING", "PENDING"])]
    (slurm / "queue").write_text("\n".join([*lines, "42|N/A|PENDING|0:00|Dependency"]) + "\n")
    rows = out / "runs/flat/seed-0/metrics.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"step": 1, "loss": 2.5, "seconds": 2.0}\n')
    done = out / "runs/structured/seed-1/result.json"
    done.parent.mkdir(parents=True)
    done.write_text('{"finished": true}')
    error = out / "cluster/logs/flat-1.err"
    error.write_text("kava: error: the disk is full\nbye\n")
    assert run(main, ["status", "out"]) == 0
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines()[1:6]] == [
        ["arm", "seed", "job", "state", "step", "loss", "left", "limits", "met"],
        ["flat", "0", "41_0", "running", "1", "of", "4", "2.5000", "6", "s", "0"],
        ["structured", "0", "41_1", "pending", "–", "of", "4", "–", "–", "0"],
        ["flat", "1", "–", "lost", "–", "of", "4", "–", "–", "0"],
        ["structured", "1", "–", "finished", "–", "of", "4", "–", "0", "s", "0"],
    ]
    assert "report: job 42, pending" in table
    assert "flat, seed 1: kava: error: the disk is full" in table

    line = refusal(main, submit(tmp_path), capsys)
    assert "out is submitted already: job 41 of slurm has not ended (running); wait for it" in line
    assert len(read_record(out)) == 1
    assert run(main, ["logs", "out", "--arms", "flat", "--seeds", "1"]) == 0
    assert capsys.readouterr().out == f"==> {Path('out')}/cluster/logs/flat-1.err\n" + (
        "kava: error: the disk is full\nbye\n"
    )
    assert run(main, ["cancel", "out", "--seeds", "0"]) == 0
    assert run(main, ["cancel", "out"]) == 0
    assert calls(slurm)[-2:] == ["scancel 41_0 41_1", "scancel 42 41"]
    (slurm / "queue").write_text("")
    capsys.readouterr()
    assert run(main, ["cancel", "out"]) == 0
    assert "job 41 of slurm has ended: there is nothing to cancel" in capsys.readouterr().out
    assert calls(slurm)[-1] == "scancel 42 41"


def test_a_dry_run_prints_the_scripts_and_writes_nothing(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, submit(tmp_path, "--dry_run", "--time", "30")) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --time=00:30:00" in said
    assert '--arms "$arm" --seeds "$seed" --jobs 1 --shared' in said
    assert f"# submitted by: sbatch {tmp_path}/out/cluster/runs.sbatch" in said
    assert calls(slurm) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["slurm", "pbs"])
def test_scripts_can_be_looked_at_where_there_is_no_scheduler(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(main, submit(tmp_path, "--dry_run", "--engine", engine)) == 0
    assert "# not checked against a cluster: there is no " in capsys.readouterr().out
    assert run(main, submit(tmp_path, "--engine", engine)) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--partition", "gpus"], "--partition 'gpus' does not exist (did you mean 'gpu'?): the"),
        (["--time", "2-00"], "--time 2-00 is more than the 24:00:00 of partition 'gpu': lower it"),
        (["--time", "3", "--step_seconds", "70"], "no checkpoint before the limit: a step takes"),
        (["--step_seconds", "150"], "a step takes 150 s, more than the 120 s of --grace"),
        (
            ["--time", "1:00:00", "--requeue", "false", "--step_seconds", "100"],
            "a run of flat takes about 66 min 40 s (40 steps of 100 s), and its only job 58 min",
        ),
        (["--arms", "flta"], "--arms: 'flta' is no arm of small (did you mean 'flat'?)"),
        (["--grace", "600", "--time", "10"], "--grace 600 is not below the 600 seconds of --time"),
        (["--engine", "pbs"], "there is no qsub on this machine: submit from a login node"),
        (["--engine", "local", "--gres", "gpu:1"], "--gres is for a scheduler; leave it out"),
    ],
)
def test_what_the_cluster_cannot_do_is_one_line_and_nothing_is_written(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str,
) -> None:  # fmt: skip
    if "pbs" in flags:
        monkeypatch.setattr("kava.cluster.pbs.has", lambda program: False)
    assert words in refusal(
        main, submit(tmp_path, *flags, values=changed(budget__steps=40)), capsys
    )
    assert calls(slurm) == []
    assert not (tmp_path / "out").exists()


def test_without_a_scheduler_the_line_names_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    plan = written(tmp_path, GOOD)
    out = ["--output_dir", str(tmp_path / "out")]
    line = refusal(main, ["submit", str(plan), *out], capsys)
    assert "there is no scheduler on this machine (no sbatch, no qsub)" in line
    assert "or take --engine local" in line
    line = refusal(main, ["submit", str(plan), *out, "--engine", "slurm"], capsys)
    assert "there is no sbatch on this machine: submit from a login node of the cluster" in line


def test_a_refused_report_leaves_the_runs_and_their_record(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slurm / "no_report").touch()
    line = refusal(main, submit(tmp_path), capsys)
    assert (
        "the runs are submitted (job 41), and their report is not: sbatch refused: sbatch: " in line
    )
    (one,) = read_record(tmp_path / "out")
    assert (one.runs, one.report) == ("41", "")


def test_processes_of_this_machine_stand_in_for_a_scheduler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for kava in the jobs, and two seconds to a limit."""
    monkeypatch.chdir(tmp_path)
    fakes.install(tmp_path, monkeypatch, {})
    venv = str(fakes.environment(tmp_path))
    argv = ["submit", str(written(tmp_path, GOOD)), "--output_dir", "out", "--engine", "local"]
    argv += [
        "--seeds",
        "0",
        "--arms",
        "flat",
        "structured",
        "--venv",
        venv,
        "--time",
        "1",
        "--grace",
        "58",
    ]
    assert run(main, [*argv, "--max_tasks", "2"]) == 0
    assert "2 runs, submitted to local as " in capsys.readouterr().out
    assert "submitted already" in refusal(main, argv, capsys)
    until((tmp_path / "reported").is_file)
    for arm in ("flat", "structured"):
        assert (tmp_path / f"out/cluster/stops/{arm}-0").read_text() == "10\n20\n"

    assert run(main, argv) == 0  # the stand-in writes no result, so that both are missing still
    for arm in ("flat", "structured"):
        (tmp_path / f"out/runs/{arm}/seed-0/starts").unlink()
    (tmp_path / "reported").unlink()
    capsys.readouterr()
    assert run(main, ["cancel", "out"]) == 0
    assert "2 runs cancelled; they save their step" in capsys.readouterr().out
    assert run(main, ["monitor", "out", "--auto", "--every", "0.1"]) == 0
    assert "2 lost" in capsys.readouterr().out.splitlines()
    assert not (tmp_path / "reported").exists()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("part", ["status", "logs", "cancel", "monitor"])
def test_a_folder_without_a_submitted_study_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    assert "holds no study: it has no plan.lock.json" in refusal(
        main, [part, str(tmp_path)], capsys
    )


def test_the_check_counts_what_is_wrong_and_writes_a_report(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = written(tmp_path, changed(base__teacher_name="Qwen/Qwen2.5-1.5B"))
    flags = ["--partition", "gpu", "--gres", "gpu:a10:1", "--output", "report.txt"]
    assert run(main, ["check", str(plan), *flags]) == 1
    said = capsys.readouterr().out
    report = (tmp_path / "report.txt").read_text()
    assert report in said
    for line in (
        "ok       slurm-wlm 22.05.8, its controller answers",
        "ok       gpu: 4 nodes, 24:00:00, chosen",
        "warning  old: 1 node, 02:00:00, down",
        "ok       the cluster has gpu:a100:8, gpu:v100:2",
        "error    --gres 'gpu:a10:1' is not on this cluster (did you mean 'gpu:a100'?); such as "
        "gpu:a100:1",
        "error    Qwen/Qwen2.5-1.5B: not here; hf download Qwen/Qwen2.5-1.5B",
        "ok       kava/shell-llama: built in",
        "ok       runs.sbatch: valid shell",
    ):
        assert line in report.splitlines()
    assert report.splitlines()[-1].startswith("errors ")
    good = written(tmp_path, GOOD)
    assert run(main, ["check", str(good), "--partition", "gpu", "--gres", "gpu:a100:1"]) == (
        1 if "built without CUDA" in report else 0
    )
    assert (tmp_path / "pre_deployment_check_report.txt").is_file()


def test_sockets_of_a_gpu_are_no_gpus_of_their_own(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "gpu*|1-00:00:00|up|4|gpu:a100:4(S:1,3),gpu:v100:2(S:0-1)"
    fakes.install(slurm, monkeypatch, {"sinfo": f"echo '{line}'"})
    assert run(main, ["check", "--only", "gpus", "--gres", "gpu:a100:1"]) == 0
    said = capsys.readouterr().out
    assert "ok       the cluster has gpu:a100:4, gpu:v100:2" in said.splitlines()
    assert "ok       --gres gpu:a100:1" in said


def test_models_are_found_in_a_store_of_either_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    store = tmp_path / "store"
    for place in ("Qwen2.5-1.5B", "models--org--small/snapshots/abc"):
        (store / place).mkdir(parents=True)
        (store / place / "config.json").write_text("{}")
        (store / place / "model.safetensors").write_bytes(bytes(2_000_000))
    plan = written(
        tmp_path,
        changed(base__model_name="Qwen/Qwen2.5-1.5B", base__teacher_name="org/small",
                arms__flat__changes={"alignment_mode": "flat", "teacher_name": "gpt2"}),
    )  # fmt: skip
    assert run(main, ["models", str(plan), "--store", str(store)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["Qwen/Qwen2.5-1.5B", "2.0", "MB", f"{store}/Qwen2.5-1.5B"]
    assert f"in the plan, write {store}/Qwen2.5-1.5B for Qwen/Qwen2.5-1.5B" in lines[-3]
    assert lines[-2] == f"gpt2: hf download gpt2 --local-dir {store}/gpt2"
    assert lines[-1] == f"org/small: export HF_HUB_CACHE={store}"
    monkeypatch.setenv("HF_HUB_CACHE", str(store))
    assert run(main, ["models", str(written(tmp_path, GOOD))]) == 0
    assert "built in" in capsys.readouterr().out
