"""`kava demo`: its flags, its workers, a failing arm, and a small run from end to end."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kava.commands.demo import main, plan_runs
from kava.demo import settings
from kava.demo.arms import EVICTION, MAIN, TEACHER, Study, eviction_study
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.runner import run_study
from kava.demo.settings import USAGE
from kava.demo.worker import RESULT_FILE, RunJob, finished
from kava.errors import KavaError
from kava.jobs.crew import Crew, Worker
from kava.jobs.progress import ProgressView
from kava.student.checkpoint import library_versions
from one_line import refusal

TORCH = library_versions()["torch"]


def jobs(folder: Path, *names: str) -> list[RunJob]:
    return plan_runs(
        MAIN,
        MAIN.choose(names),
        folder,
        num_steps=4,
        num_seeds=1,
        num_items=10,
        model_name="kava/shell-llama",
    )


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
    ("argv", "study"),
    [
        ([], MAIN),
        (["--pair", "same"], MAIN),
        (["--eviction"], EVICTION),
        (["--eviction", "--num_latents", "3"], EVICTION),
        (["--eviction", "--num_latents", "5"], eviction_study(5)),
        (["--pair", "hetero"], HETERO),
        (["--pair", "hetero", "--study", "maps"], HETERO),
        (["--pair", "hetero", "--study", "rank"], RANK),
        (["--pair", "hetero", "--study", "joint"], JOINT),
    ],
)
def test_flags_choose_the_study(argv: list[str], study: Study) -> None:
    assert USAGE.parse(argv).chosen_study() == study


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
    assert "--arms 'kvv' is unknown (did you mean 'kv'?)" in refusal(main, argv, capsys)
    assert not (tmp_path / "out").exists()


def test_arms_get_their_seeds(tmp_path: Path) -> None:
    runs = plan_runs(
        MAIN, MAIN.arms, tmp_path, num_steps=4, num_seeds=None, num_items=10, model_name="x/y"
    )
    assert [run.name for run in runs] == [
        "written, seed 0", "none, seed 0", "pause, seed 0", "ce, seed 0",
        "codi, seed 0", "codi, seed 1", "kv, seed 0", "kv, seed 1",
        "kv_jacobi, seed 0", "kv_jacobi, seed 1", "codi_kv, seed 0", "codi_kv, seed 1",
    ]  # fmt: skip
    assert len({run.folder for run in runs}) == len(runs)


def test_another_models_teacher_decides_a_run_too(tmp_path: Path) -> None:
    (same,), (other,) = (
        plan_runs(
            study, study.arms[:1], tmp_path, num_steps=4, num_seeds=1, num_items=10,
            model_name=TEACHER,
        )
        for study in (MAIN, HETERO)
    )  # fmt: skip
    assert "teacher_weights" not in same.fingerprint
    assert len(other.fingerprint["teacher_weights"]) == 64
    assert other.fingerprint["teacher_weights"] != other.fingerprint["weights"]


def save_outcome(run: RunJob, **changes: object) -> None:
    outcome = {"arm": run.arm, "seed": 0, "accuracy": 0.5, "num_items": 10, "train_seconds": 1.0}
    run.folder.mkdir(parents=True, exist_ok=True)
    saved = {"settings": run.settings() | changes, "outcome": outcome}
    (run.folder / RESULT_FILE).write_text(json.dumps(saved))


def test_a_finished_run_is_used_again_only_with_the_same_settings(tmp_path: Path) -> None:
    (run,) = jobs(tmp_path, "kv")
    assert finished(run) is None
    save_outcome(run)
    outcome = finished(run)
    assert outcome is not None
    assert outcome.accuracy == 0.5
    assert outcome.r_squared is None  # an earlier version's result, which did not say
    for other, difference in (
        (replace(run, num_items=11), "num_items 10, now 11"),
        (replace(run, config=replace(run.config, max_steps=5)), "max_steps 4, now 5"),
        (replace(run, fingerprint={**run.fingerprint, "torch": "0"}), f"torch {TORCH}, now 0"),
    ):
        assert finished(other) is None
        message = f"kv-seed0 holds a finished run with other settings ({difference}): pass --over"
        with pytest.raises(ValueError, match=re.escape(message)):
            run_study([other], tmp_path, num_jobs=1, overwrite=False)
        assert finished(run) == outcome  # nothing is lost


def test_a_result_of_an_earlier_version_is_used_again(tmp_path: Path) -> None:
    """One without a setting that is new, and with another default of one that decides nothing."""
    (run,) = jobs(tmp_path, "kv")
    save_outcome(run)
    saved = json.loads((run.folder / RESULT_FILE).read_text())
    del saved["settings"]["config"]["resume_from"], saved["settings"]["config"]["latent_ce_weight"]
    saved["settings"]["config"]["save_total_limit"] = None
    (run.folder / RESULT_FILE).write_text(json.dumps(saved))
    assert finished(run) is not None


def test_a_half_written_result_counts_for_nothing(tmp_path: Path) -> None:
    (run,) = jobs(tmp_path, "kv")
    save_outcome(run)
    text = (run.folder / RESULT_FILE).read_text()
    (run.folder / RESULT_FILE).write_text(text[:-40])
    assert finished(run) is None


def test_a_worker_that_is_killed_is_named(tmp_path: Path) -> None:
    (run,) = jobs(tmp_path, "kv")
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
def test_a_failing_arm_fails_the_study_in_one_line(tmp_path: Path) -> None:
    broken, whole = jobs(tmp_path, "none", "kv")
    config = replace(broken.config, dataset_name="nowhere.jsonl")
    with pytest.raises(KavaError) as failure:
        run_study([replace(broken, config=config), whole], tmp_path, num_jobs=2, overwrite=False)
    message = str(failure.value)
    assert message.startswith("none, seed 0 failed: dataset 'nowhere.jsonl' is neither")
    assert f"(its log: {broken.log})" in message
    assert "\n" not in message
    assert not (tmp_path / "results.json").exists()


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
    assert "not run: answer only (ce)" in said.out
    assert re.search(r"\[2/2\] kv_jacobi, seed 0: \d+\.\d % of 10 answers right", said.err)
    assert (tmp_path / "runs" / "kv_jacobi-seed0" / "checkpoint-4" / "model.safetensors").exists()

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
    monkeypatch.setitem(settings.HETERO_STUDIES, "maps", small)
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
        lines = (tmp_path / "runs" / f"{row['arm']}-seed0" / "metrics.jsonl").read_text()
        logged = [line for line in map(json.loads, lines.splitlines()) if "eval_kv" in line]
        assert row["kv"] == logged[-1]["eval_kv"]
        assert row["kv_wrong_sample"] == logged[-1]["eval_kv_wrong_sample"]
    for name in ("accuracy", "curves", "losses", "layers", "heads", "time"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    said = " ".join(capsys.readouterr().out.split())
    assert f"{fitted['aligner_parameters']:,}" in said
    assert "not run: answer only (ce)" in said
    assert "NOT MET: a calibrated structured map" in said
    calibration = json.loads((tmp_path / "runs/rank_8-seed0/calibration.json").read_text())
    found = [
        fit["calibrated"]["r_squared"]
        for fit in calibration["layers"]
        if fit["part"] in ("keys", "values")
    ]
    assert fitted["r_squared"] == pytest.approx(sum(found) / len(found))
