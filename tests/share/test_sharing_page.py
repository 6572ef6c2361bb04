"""docs/sharing.md says what the code does; its program for latents is tested with the exports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from conftest import ROOT
from kava.commands.export import main as export
from kava.data.records import Template
from kava.models.load import load_model, load_tokenizer
from kava.student.exported import write_exported
from kava.student.latent import LatentStudent

PAGE = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
LOAD, PIPE, _ = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def python(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_the_examples_run_in_a_process_of_their_own(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "latent/checkpoint-2", tmp_path / "outputs/run/checkpoint-500")
    done = python(f"{LOAD}\n{PIPE}\nprint(len(answers), ids.shape[0])", tmp_path)
    assert done.stdout.strip() == "2 2", done.stderr
    assert "is not supported" not in done.stderr


@pytest.mark.slow
def test_an_exported_student_is_read_by_its_name_on_the_hub(runs: Path, tmp_path: Path) -> None:
    """From the cache of the hub's library, as a download leaves it."""
    repository = tmp_path / "hub/models--me--mine"
    snapshot = repository / "snapshots/0123456789abcdef0123456789abcdef01234567"
    assert export([str(runs / "latent"), "--output_dir", str(snapshot)]) == 0
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(snapshot.name)
    program = (
        "from kava import load_student\n"
        "student = load_student('me/mine')\n"
        "print(type(student.model).__name__, student.path, student.settings['step'])"
    )
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = python(program, tmp_path, **offline)
    assert done.stdout.strip() == "LatentStudent me/mine 2", done.stderr
    (snapshot / "kava_latent.safetensors").unlink()
    done = python(program, tmp_path, **offline)
    assert "is the base of a latent student, and the hub gave no kava_latent.safeten" in done.stderr


def cells(after: str) -> set[str]:
    """The names in code in the first column of the table behind a text."""
    table = PAGE.partition(after)[2].partition("\n\n")[2].partition("\n\n")[0]
    first = [row.split(" | ")[0] for row in table.splitlines()[2:]]
    return {name for cell in first for name in re.findall(r"`([\w.]+)`", cell)}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    student = LatentStudent.wrap(
        load_model("kava/tiny-llama"), num_latents=2, decoding="jacobi", num_iterations=1
    )
    settings = {"step": 1, "data_hash": "a"}
    write_exported(tmp_path, student, load_tokenizer("kava/tiny-llama"), Template(), settings)
    return tmp_path


def test_the_tables_hold_every_key_and_every_tensor(written: Path) -> None:
    assert cells("\n`kava_latent.json`") == {
        *json.loads((written / "kava_latent.json").read_text())
    }
    with safe_open(written / "kava_latent.safetensors", framework="pt") as file:
        there = {name.removesuffix(".bias") for name in file.keys()}  # noqa: SIM118
    named = cells("\n`kava_latent.safetensors`, W") - {".bias"}
    assert named == {name for name in there if not name[-1].isdigit()}
