"""The scripts under the names that users know: thin calls, which say what they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import fakes

ROOT = Path(__file__).parents[2]
NAMES = (
    *(
        "auto_fix",
        "check_gpu_node",
        "check_hpc_models",
        "comprehensive_pre_deployment_check",
        "in_a_job",
    ),
    *("detect_slurm_resources", "monitor_training", "run_multi_teacher", "run_multinode"),
    *("run_three_stage_routing", "submit_pbs", "submit_slurm"),
    *("gpu_check", "pretrained_study"),
)


def script(name: str, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("SLURM_CONF", None)
    return subprocess.run(
        ["bash", ROOT / "scripts" / f"{name}.sh", *flags],
        env={**environment, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_there_may_be_run_and_is_valid_shell(name: str) -> None:
    path = ROOT / "scripts" / f"{name}.sh"
    assert os.access(path, os.X_OK)
    assert b"\r" not in path.read_bytes()
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_clone_from_another_system_is_mended(tmp_path: Path) -> None:
    for name in ("scripts", "src/kava", "experiments"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "src/kava/cli.py"):
        (tmp_path / name).touch()
    (tmp_path / "experiments/train_with_kv.py").touch()
    shutil.copy(ROOT / "scripts/auto_fix.sh", tmp_path / "scripts")
    broken = tmp_path / "scripts/broken.sh"
    broken.write_bytes(b'#!/bin/bash\r\ncd $HOME\r\necho "done"\r\n\n')
    broken.chmod(0o644)
    run = ["bash", tmp_path / "scripts/auto_fix.sh"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert broken.read_bytes() == b'#!/bin/bash\ncd $HOME\necho "done"\n\n'
    assert os.access(broken, os.X_OK)
    assert (tmp_path / "data/unified_splits").is_dir()
    assert "scripts/broken.sh:2:cd $HOME" in done.stdout
    assert "Makefile is missing: clone again" in done.stderr
    broken.write_text('#!/bin/bash\ncd "$HOME"\n')
    (tmp_path / "Makefile").touch()
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "broken" not in done.stdout


def test_scripts_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(tmp_path, monkeypatch, {})
    done = script("check_hpc_models", SHARED_MODEL_DIR=str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"SHARED_MODEL_DIR {tmp_path / 'none'} is no folder" in done.stderr
    done = script("monitor_training", "-a", STUDY=str(tmp_path))
    assert done.returncode == 1
    assert "holds no study: it has no plan.lock.json" in done.stderr
    assert script("in_a_job").stderr.startswith("name the command: sbatch scripts/in_a_job.sh")
    assert "submit this script by sbatch" in script("run_multinode").stderr


@pytest.mark.parametrize(
    ("flags", "config", "folder"),
    [
        ("--output_dir outputs/a --lr 1e-3", "", "outputs/a"),
        ("--output_dir=outputs/a", "", "outputs/a"),
        ("--lr 1e-3 --output-dir outputs/a", "", "outputs/a"),
        ("--config run.yaml", "lr: 1\noutput_dir: outputs/b\n", "outputs/b"),
        ("--config=run.yaml", "output_dir:   'outputs/b c'  # here\r\n", "outputs/b c"),
        ("--config run.yaml", 'output_dir: "outputs/b#1"\n', "outputs/b#1"),
        ("--config run.yaml --output_dir=outputs/a", "output_dir: outputs/b", "outputs/a"),
        ("--output_dir outputs/a --config run.yaml", "output_dir: outputs/b", "outputs/a"),
        ("--config run.yaml", "lr: 1\n#output_dir: outputs/b\n", "kept/run"),
        ("--lr 1e-3", "", "kept/run"),
    ],
)
def test_a_job_goes_on_where_the_folder_of_its_run_has_a_checkpoint(
    flags: str, config: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "kava": 'echo "kava $*" >> "$FAKE/calls"; exit 138',
        "scontrol": 'echo "scontrol $*" >> "$FAKE/calls"',
    }
    fakes.install(tmp_path, monkeypatch, programs)
    (tmp_path / "run.yaml").write_bytes(config.encode())
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "KAVA_OUTPUT_PATH": "kept"}
    # a checkpoint in any other folder is that of another run
    others = {"outputs/a", "outputs/b", "outputs/run", "kept/run"} - {folder}
    for place in others:
        (tmp_path / place / "checkpoint-3").mkdir(parents=True)
    for end in ("", " --resume"):
        done = script("in_a_job", "kava", "train", *flags.split(), **job)
        assert (done.returncode, done.stderr) == (0, "")
        asked, again = (tmp_path / "calls").read_text().splitlines()[-2:]
        assert asked == f"kava train {flags}{end}"
        assert again == "scontrol requeue 7"
        (tmp_path / folder / "checkpoint-3").mkdir(parents=True, exist_ok=True)


@pytest.mark.slow
def test_scripts_hand_their_flags_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(tmp_path, monkeypatch, {**fakes.SLURM, "qsub": "exit 1", "qstat": "exit 1"})
    out = str(tmp_path / "out")
    done = script("submit_slurm", "--time", "30", "--dry_run", "--output_dir", out)
    assert "#SBATCH --time=00:30:00" in done.stdout, done.stderr
    done = script("submit_pbs", "--dry_run", "--output_dir", out)
    assert "#PBS -l walltime=08:00:00" in done.stdout, done.stderr
    report = str(tmp_path / "report.txt")
    done = script("detect_slurm_resources", "--gres", "gpu:a100:1", "--output", report)
    assert (done.returncode, "== python" in done.stdout) == (0, False), done.stdout + done.stderr
    assert "--gres gpu:a100:1" in done.stdout
    done = script("comprehensive_pre_deployment_check", "--output", report)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "errors 0" in Path(report).read_text()
    assert script("run_three_stage_routing", "--dry_run").returncode == 0
