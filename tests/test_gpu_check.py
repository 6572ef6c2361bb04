"""scripts/gpu_check.sh, tried without a GPU on the small built-in models, and its study alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src/kava/assets"


def check(
    folder: Path, script: str = "gpu_check", **variables: str
) -> subprocess.CompletedProcess[str]:
    chosen = {
        "DEVICE": "cpu",
        "STEPS": "2",
        "SIZE": "small",
        "OUTPUT_DIR": str(folder),
        "ARMS": "kv",
    }
    models = {"SMOLLM2": str(ASSETS / "word_teacher"), "GEMMA": str(ASSETS / "word_neox_teacher")}
    python = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        ["bash", ROOT / f"scripts/{script}.sh"],
        env={**os.environ, **python, **models, **chosen, "OUTPUT_DIR": str(folder), **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_checks_and_an_arm_run_and_are_not_done_twice(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"0 parts failed; results in {tmp_path}" in done.stdout
    result = json.loads((tmp_path / "study/runs/kv/seed-0/result.json").read_text())
    assert result["budget"]["optimizer_steps"] == 2
    again = check(tmp_path)
    assert again.stdout.count("done before") == len([*tmp_path.glob("*.done")]) > 5


def test_models_that_are_missing_and_time_that_is_over(tmp_path: Path) -> None:
    done = check(tmp_path, GEMMA=str(tmp_path / "none"))
    assert done.returncode == 2
    assert f"{tmp_path / 'none'} holds no model: run scripts/pretrained_models.py" in done.stderr
    done = check(tmp_path, MINUTES="0")
    assert done.returncode == 1
    assert "machine: no time is left" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("DEVICE", "gpu", "cpu, mps, cuda or cuda:NUMBER"),
        ("MINUTES", "abc", "a whole number of minutes"),
        ("MINUTES", "0.5", "a whole number of minutes"),
        ("STEPS", "0", "a whole number above 0"),
        ("SIZE", "tiny", "full or small"),
        ("SEEDS", "0 x", "a whole number"),
        ("ARMS", "kv nothing", "one of kv latents"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_is_done(
    variable: str, value: str, what: str, tmp_path: Path
) -> None:
    done = check(tmp_path / "out", **{variable: value})
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gpu_check: {variable}='{value.split()[-1]}' is not {what}")
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_said_in_the_line_of_its_part(tmp_path: Path) -> None:
    done = check(tmp_path, DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "machine: failed, exit code 1" in line
    assert "no CUDA device is visible" in line


@pytest.mark.parametrize("missing", ["SMOLLM2", "GEMMA"])
def test_the_study_refuses_models_that_are_missing_before_it_trains(
    missing: str, tmp_path: Path
) -> None:
    named = {missing: str(tmp_path / "none"), "PYTHON": "false"}
    done = check(tmp_path, "pretrained_study", **named)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pretrained_study: {tmp_path / 'none'} holds no model: name")
