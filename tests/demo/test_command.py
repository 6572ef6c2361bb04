"""`kava demo`: its flags, its workers, a failing arm, and a small run from end to end."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kava.cli import run as cli
from kava.commands.demo import main, remove_runs
from kava.demo import settings
from kava.demo.arms import EVICTION, MAIN, Demo, eviction_demo, plan_of
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.settings import USAGE
from kava.errors import KavaError
from kava.jobs.crew import Crew, Worker
from kava.jobs.progress import ProgressView
from kava.study.folder import lock_plan
from kava.study.plan import Plan
from kava.study.run import StudyRun
from kava.study.runner import study_runs
from one_line import refusal


def some_runs(folder: Path, *names: str, num_steps: int = 4, num_items: int = 10) -> Any:
    """The plan of a small demo, and its runs."""
    plan = plan_of(
        MAIN, num_steps=num_steps, num_seeds=1, num_items=num_items, model_name="kava/shell-llama"
    )
    return plan, study_runs(plan, folder, arms=names or None)


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from kava.commands.demo import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in (
        "--eviction", "kv_jacobi", "right_crop", "--seeds", "--pair", "joint", "rank_8",
        "back_calibrated",
    ):  # fmt: skip
        assert word in done.stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["--step"],
        ["--steps", "many"],
        ["extra"],
        ["--pair", "other"],
        ["--study", "heads"],
        ["--num_latents", "4"],
    ],
)
def test_wrong_flags_are_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert argv[-1] in refusal(main, argv, capsys)


@pytest.mark.parametrize("flag", ["steps", "seeds", "jobs", "num_items"])
@pytest.mark.parametrize("value", ["0", "1000000000000"])
def test_numbers_outside_their_range_are_refused(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"--{flag} {value} must be from 1 to " in refusal(main, [f"--{flag}", value], capsys)


@pytest.mark.parametrize(
    ("argv", "demo"),
    [
        ([], MAIN),
        (["--pair", "same"], MAIN),
        (["--eviction"], EVICTION),
        (["--eviction", "--num_latents", "3"], EVICTION),
        (["--eviction", "--num_latents", "5"], eviction_demo(5)),
        (["--pair", "hetero"], HETERO),
        (["--pair", "hetero", "--study", "maps"], HETERO),
        (["--pair", "hetero", "--study", "rank"], RANK),
        (["--pair", "hetero", "--study", "joint"], JOINT),
    ],
)
def test_flags_choose_the_demo(argv: list[str], demo: Demo) -> None:
    assert USAGE.parse(argv).demo() == demo


def test_flags_enter_the_plan() -> None:
    argv = ["--steps", "50", "--seeds", "4", "--num_items", "30", "--model_name", "x/y"]
    plan = USAGE.parse(argv).plan()
    assert (plan.budget.steps, plan.seeds, plan.data.test_items) == (50, (0, 1, 2, 3), 30)
    assert (plan.base["model_name"], plan.base["warmup_steps"]) == ("x/y", 5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--pair", "hetero", "--eviction"], "--eviction belongs to --pair same; leave one"),
        (
            ["--pair", "hetero", "--num_latents", "5"],
            "--num_latents belongs to --pair same; leave one",
        ),
        (["--study", "rank"], "--study rank belongs to --pair hetero; add it"),
        (["--eviction", "--study", "maps"], "--study maps belongs to --pair hetero; add it"),
        (["--num_latents", "5"], "--num_latents 5 belongs to --eviction; add it"),
    ],
)
def test_flags_of_different_studies_are_refused(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(main, [*argv, "--output_dir", str(tmp_path / "out")], capsys)
    assert line.startswith(f"kava demo: error: {message}")
    assert not (tmp_path / "out").exists()


def test_an_unknown_arm_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--arms", "kvv", "--output_dir", str(tmp_path / "out")]
    assert "--arms: 'kvv' is no arm of demo (did you mean 'kv'?)" in refusal(main, argv, capsys)
    assert not (tmp_path / "out").exists()


def keep(plan: Plan, run: StudyRun, folder: Path) -> Path:
    """Leave a finished run."""
    lock_plan(folder, plan, "", "kava demo")
    run.folder.mkdir(parents=True)
    run.finish({"accuracy": 0.5, "num_items": 10, "train_seconds": 1.0})
    return run.folder / "result.json"


def test_runs_of_other_settings_are_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, (run,) = some_runs(tmp_path, "kv")
    kept = keep(plan, run, tmp_path)
    argv = ["--steps", "5", "--seeds", "1", "--num_items", "10", "--output_dir", str(tmp_path)]
    assert cli(main, [*argv, "--model_name", "kava/shell-llama"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "budget.steps 4, now 5" in line
    assert line.endswith(
        "; pass --overwrite to begin anew in its place, or take another --output_dir"
    )
    assert kept.is_file()


def test_overwriting_spares_the_arms_that_are_not_run_again(tmp_path: Path) -> None:
    plan, (kv, ce) = some_runs(tmp_path, "kv", "ce")
    kept = [keep(plan, run, tmp_path) for run in (kv, ce)]
    remove_runs(plan, [kv], tmp_path)
    assert [path.is_file() for path in kept] == [False, True]
    remove_runs(replace(plan, seeds=(0, 1)), [kv], tmp_path)
    assert not kept[1].is_file()
    assert not (tmp_path / "plan.lock.json").exists()


def test_a_worker_that_is_killed_is_named(tmp_path: Path) -> None:
    _, (run,) = some_runs(tmp_path, "kv")
    worker = Worker()
    worker.job = run
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(KavaError, match=r"^kv, seed 0 failed: .* ended by signal 9 \(its log: "):
        worker.hear()


@pytest.mark.slow
def test_idle_workers_end_by_themselves() -> None:
    crew = Crew(1, ProgressView(1))
    crew.end()
    assert crew.workers[0].process.exitcode == 0


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end_and_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--steps", "4", "--num_items", "10", "--jobs", "1", "--arms", "written", "kv_jacobi",
        "--seeds", "1", "--model_name", "kava/shell-llama", "--output_dir", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["arm"], row["seed"], row["num_items"]) for row in rows] == [
        ("written", 0, 10), ("kv_jacobi", 0, 10),
    ]  # fmt: skip
    assert rows[1]["forward_passes"] >= 3
    assert all(row["seconds_per_answer"] > 0 and row["train_seconds"] > 0 for row in rows)
    for name in ("report.html", "accuracy.png", "curves.png", "losses.png", "passes.png"):
        assert (tmp_path / name).stat().st_size > 1000
        assert str(tmp_path / name) in said.out
    assert "not run: answer only (ce), reading trained" in said.out
    assert re.search(r"\[2/2\] kv_jacobi, seed 0: \d+\.\d % of 10 answers right", said.err)
    assert (
        tmp_path / "runs" / "kv_jacobi" / "seed-0" / "checkpoint-4" / "model.safetensors"
    ).exists()

    before = (tmp_path / "results.json").read_text()
    assert main(argv) == 0
    assert "from an earlier call" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == before


@pytest.mark.slow
def test_the_eviction_demo_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--eviction", "--steps", "2", "--num_items", "4", "--jobs", "1", "--arms", "positions",
        "rkv", "--seeds", "1", "--model_name", "kava/shell-llama", "--output_dir", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["arm"] for row in rows] == ["positions", "rkv"]
    for name in ("report.html", "accuracy.png", "kept.png", "kept.json"):
        assert (tmp_path / name).stat().st_size > 500
    assert "The teacher, writing all of it" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_hetero_demo_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(HETERO, common={**HETERO.common, "calibration_samples": 96})
    monkeypatch.setitem(settings.HETERO_DEMOS, "maps", small)
    argv = [
        "--pair", "hetero", "--steps", "3", "--num_items", "4", "--jobs", "1", "--arms", "rank_8",
        "uniform", "--seeds", "1", "--output_dir", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 0
    fitted, uniform = json.loads((tmp_path / "results.json").read_text())
    assert (fitted["arm"], uniform["arm"]) == ("rank_8", "uniform")
    assert 0 < fitted["r_squared"] < 1
    assert uniform["r_squared"] is None
    # two layers' maps of keys and values: 8 terms of [4, 3] and [16, 32], and a bias of [4, 16]
    assert fitted["aligner_parameters"] == 2 * 2 * (8 * (4 * 3 + 16 * 32) + 4 * 16)
    assert uniform["aligner_parameters"] == 2 * (4 * 3 + 16 * 32)
    for row in (fitted, uniform):
        lines = (tmp_path / "runs" / row["arm"] / "seed-0" / "metrics.jsonl").read_text()
        logged = [line for line in map(json.loads, lines.splitlines()) if "eval_kv" in line]
        assert row["kv"] == logged[-1]["eval_kv"]
        assert row["kv_wrong_sample"] == logged[-1]["eval_kv_wrong_sample"]
    for name in ("accuracy", "curves", "losses", "layers", "heads", "time"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    said = " ".join(capsys.readouterr().out.split())
    assert f"{fitted['aligner_parameters']:,}" in said
    assert "not run: answer only (ce)" in said
    assert "NOT MET: a calibrated structured map" in said
    calibration = json.loads((tmp_path / "runs/rank_8/seed-0/calibration.json").read_text())
    found = [
        fit["calibrated"]["r_squared"]
        for fit in calibration["layers"]
        if fit["part"] in ("keys", "values")
    ]
    assert fitted["r_squared"] == pytest.approx(sum(found) / len(found))
