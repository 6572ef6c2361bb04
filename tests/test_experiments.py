"""The command lines that users know, end to end: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from conftest import ROOT
from kava.models.load import load_model, load_tokenizer

MODEL = "kava/tiny-gpt2"
SMOKE = ["--subset_size", "10", "--batch_size", "2", "--epochs", "1", "--kv_method", "rkv"]
MODES = {
    "flat": ["--alignment_mode", "flat"],
    "structured": [
        "--alignment_mode",
        "structured",
        "--map_proj_share_dim",
        "--map_proj_init_uniform",
    ],
}
NUMBER = r"\d+(\.\d+)?(e-?\d+)?"
TERMS = rf"loss={NUMBER}, CE={NUMBER}, KV={NUMBER}, CODI={NUMBER}(?:, \w+=[-.e\d]+)*"
LOG_LINE = rf"Step (\d+): {TERMS} \[Mode: (\w+)\]"


class Result:
    """What a script left: its exit code, and the lines of both streams."""

    def __init__(self, code: int, out: str, err: str):
        self.code = code
        self.out = out
        # the built-in random models say once that they are random
        self.err = [line for line in err.splitlines() if "random weights" not in line]


Script = Callable[..., Result]


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Script:
    """Run a file of experiments/ as a program, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "experiments")  # as python does for a program
    monkeypatch.delenv("MODEL", raising=False)
    monkeypatch.delenv("KAVA_TRACEBACK", raising=False)

    def call(name: str, *flags: str) -> Result:
        path = ROOT / "experiments" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *flags])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capsys.readouterr())

    return call


def train(script: Script, *flags: str) -> Result:
    """The smoke line on the built-in model; later flags win."""
    first = ["--model_name", MODEL, *SMOKE, "--output_dir", "out", "--no_progress"]
    return script("train_with_kv", *first, "--device", "cpu", *flags)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("mode", MODES)
def test_the_smoke_line_trains_logs_and_writes_a_checkpoint(mode: str, script: Script) -> None:
    result = train(script, *MODES[mode])
    assert result.code == 0
    (match,) = re.finditer(rf"^{LOG_LINE}$", result.out, flags=re.M)
    assert match[1] == "5"
    assert match[match.lastindex] == mode
    checkpoint = Path("out/checkpoint-5")
    names = load_file(checkpoint / "map_aligner.safetensors")
    assert names
    assert all(name.startswith("map_aligner.") for name in names)
    assert any("head_mix" in name for name in names) == (mode == "structured")
    assert any(name.startswith("base.") for name in load_file(checkpoint / "model.safetensors"))
    assert json.loads((checkpoint / "kava.json").read_text())["config"]["alignment_mode"] == mode
    assert (checkpoint / "optimizer.pt").is_file()
    assert Path("out/metrics.jsonl").is_file()


def test_logging_steps_says_how_often(script: Script) -> None:
    result = train(script, *MODES["structured"], "--logging_steps", "2", "--codi_weight", "1")
    logged = [line for line in result.out.splitlines() if re.fullmatch(LOG_LINE, line)]
    assert [line.split(":")[0] for line in logged] == ["Step 2", "Step 4", "Step 5"]
    assert "CODI=0 " not in result.out


@pytest.mark.shared
@pytest.mark.parametrize("mode", MODES)
def test_the_smoke_line_runs_on_a_pretrained_model(mode: str, script: Script, shared: Path) -> None:
    result = train(script, "--model_name", str(shared / "models/stories260K"), *MODES[mode])
    assert result.code == 0
    assert re.search(LOG_LINE, result.out)


# ------------------------------------------------------------------ what training refuses


def refused(script: Script, *flags: str) -> str:
    """The one line of a training that must fail before it writes anything."""
    result = train(script, *flags)
    (line,) = result.err
    assert result.code in (1, 2)
    assert line.startswith("kava train: error: " if result.code == 2 else "kava: error: ")
    assert not Path("out").exists()
    return line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model_name no/such/model", "the folder 'no/such/model' does not exist"),
        ("--model_name kava/huge", "unknown built-in model 'kava/huge'"),
        ("--teacher_name /no/such/model", "the folder '/no/such/model' does not exist"),
        ("--dataset_name none.jsonl", "'none.jsonl' is neither a file nor a known name"),
        ("--config none.yaml", "--config none.yaml: no such file"),
        ("--kv_method best", "--kv_method 'best' is unknown; choose full, "),
        ("--alignment_mode round", "--alignment_mode 'round' is unknown; choose structured, "),
        ("--kv_loss l7", "--kv_loss 'l7' is unknown; choose "),
        ("--target_len 400", "reasoning tokens, fewer than --target_len 400; lower it"),
        ("--max_length 20", "more than --max_length 20; raise it"),
        ("--calibration_samples 0", "--calibration_samples 0 must be at least 1"),
        (
            "--teacher_name kava/tiny-gemma --alignment_mode identity",
            "use mode='structured' or mode='flat'",
        ),
        ("--resume", "--resume: out holds no complete checkpoint"),
        ("--subset_size 30000", "--subset_size 30000 is more than the 20000 training records"),
    ],
)
def test_a_wrong_value_is_one_line(flags: str, message: str, script: Script) -> None:
    assert message in refused(script, *flags.split())


@pytest.mark.parametrize("flags", [["--alignment", "flat"], ["--lr", "fast"], ["extra"]])
def test_an_unknown_flag_or_a_malformed_number_is_refused(flags: list[str], script: Script) -> None:
    assert flags[0] in refused(script, *flags)


ROW = '{"question": "1+1+1?", "reasoning": "1+1=2\\n2+1=3", "answer": "3"}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.jsonl is empty"),
        (f"{ROW}\n{ROW[:-9]}\n", "data.jsonl, line 2 is not JSON"),
        (f"{ROW}\n[1]\n", "data.jsonl, line 2 must be a JSON object"),
        (f"{ROW}\n\n{ROW.replace('answer', 'result')}\n", "data.jsonl, line 3 has no field"),
    ],
)
def test_bad_data_is_one_line_that_numbers_the_line(
    content: str, message: str, script: Script
) -> None:
    Path("data.jsonl").write_text(content)
    assert message in refused(script, "--dataset_name", "data.jsonl", "--subset_size", "1")


def test_truncated_weights_are_one_line_that_names_the_file(script: Script) -> None:
    load_model(MODEL).save_pretrained("broken")
    load_tokenizer(MODEL).save_pretrained("broken")
    weights = Path("broken/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    line = refused(script, "--model_name", "broken")
    assert "broken/model.safetensors is damaged or truncated" in line


# ------------------------------------------------------------------ several teachers

TEACHERS = ("--teacher_models", "kava/tiny-gpt2", "kava/tiny-llama")
DATA = ("--dataset_name", "kava/shell-game?num_train=32")


def several(script: Script, *flags: str) -> Result:
    """The known program, on built-in models and a device that all machines have."""
    first = ("--student_model", "kava/tiny-qwen2", "--no_progress", "--device", "cpu")
    return script("train_multi_teacher_kv", *first, *flags)


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ((), {"fusion": "fixed", "entropy_reg_strength": 0.0}),
        (
            ("--fusion_method", "learnable", "--router_type", "gate", "--phase", "4"),
            {"fusion": "learnable", "router_type": "gate", "entropy_reg_strength": 0.01},
        ),
    ],
)
def test_the_known_program_for_several_teachers_keeps_its_defaults(
    flags: tuple[str, ...], changed: dict[str, Any], script: Script
) -> None:
    result = several(script, *TEACHERS, *DATA, "--warmup_steps", "1", "--target_len", "3", *flags)
    assert result.code == 0, result.err
    assert result.out.startswith("defaults that are others here: all samples (--max_samples), ")
    checkpoint = Path("outputs/multi_teacher/checkpoint-3")  # three epochs of 4 × 8 samples
    config = json.loads((checkpoint / "kava.json").read_text())["config"]
    kept = {
        "teachers": ["kava/tiny-gpt2", "kava/tiny-llama"], "entropy_target": "specialized",
        "kv_loss": "mse", "max_length": 512, "epochs": 3.0, "batch_size": 4,
        "gradient_accumulation_steps": 8, "lr": 2e-5, "save_steps": 1000, "logging_steps": 100,
    }  # fmt: skip
    assert {name: config[name] for name in [*kept, *changed]} == kept | changed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (DATA, "--teachers is missing, as in: python experiments/train_multi_teacher_kv.py"),
        (TEACHERS, "--dataset_name is missing"),
        ((*TEACHERS, "--dataset_name", "wikitext"), "wikitext has no reasoning whose cache could"),
        ((*TEACHERS, *DATA, "--dataset_config", "wikitext-2-raw-v1"), "a task knows its own"),
        ((*TEACHERS, *DATA, "--kv_loss_type", "cosine"), "--kv_loss 'cosine' is unknown"),
        ((*TEACHERS, *DATA, "--gamma_kl", "0.01"), "--alpha_attn does"),
        ((*TEACHERS, *DATA, "--max_samples", "10000"), "more than the 32 training records"),
        ((*TEACHERS, *DATA, "--warmup_steps", "500"), "--warmup_steps 500"),
        (("--teacher_models", "kava/tiny-gpt2", *DATA, "--phase", "3"), "--phase 3 is several"),
        ((*TEACHERS, "kava/tiny-qwen2", *DATA, "--phase", "1"), "--phase 1 is two --teachers"),
        (
            (*TEACHERS, *DATA, "--fusion_method", "similarity", "--phase", "2"),
            "--phase 2 is several --teachers with --fusion fixed",
        ),
        ((*TEACHERS, *DATA, "--phase", "4"), "the other flags ask for 2 with --fusion fixed"),
        ((*TEACHERS, *DATA, "--phase", "5"), "let kava curriculum run go through the phases"),
        ((*TEACHERS, *DATA, "--phase", "6"), "--phase 6 is unknown; choose 1, 2, 3, 4, 5"),
    ],
)
def test_what_the_known_program_for_several_teachers_refuses_is_one_line(
    flags: tuple[str, ...], message: str, script: Script
) -> None:
    result = several(script, *flags)
    assert result.code in (1, 2)
    (line,) = result.err
    assert message in line
    assert not Path("outputs").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume", "--lr", "1e-3"], "was written with --lr 5e-05, this run has 0.001"),
        (["--resume", *MODES["flat"]], "--alignment_mode 'structured', this run has 'flat'"),
        (["--resume", "--subset_size", "8"], "--subset_size 10, this run has 8"),
        ([], "holds checkpoint-5 already: pass --resume"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays_as_it_is(
    flags: list[str], message: str, script: Script
) -> None:
    assert train(script, *MODES["structured"]).code == 0
    before = contents(Path("out"))
    result = train(script, *MODES["structured"], *flags)
    assert result.code == 1
    (line,) = result.err
    assert message in line
    assert contents(Path("out")) == before


# ------------------------------------------------------------------ the profile


@pytest.mark.parametrize("mode", MODES)
def test_the_profile_needs_no_more_than_its_mode(mode: str, script: Script) -> None:
    result = script("profile_alignment", "--mode", mode, "--steps", "1", "--device", "cpu")
    assert result.code == 0
    assert f"alignment:        {mode}," in result.out
    assert "all finite, shapes fit" in result.out


def test_the_profile_takes_the_model_that_MODEL_names(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL", "kava/tiny-qwen2")
    result = script("profile_alignment", "--steps", "1", "--device", "cpu")
    assert "student:          kava/tiny-qwen2: 2 layers × 2 key/value heads × 16" in result.out


# ------------------------------------------------------------------ the integration checks


def test_the_integration_checks_hold(script: Script) -> None:
    result = script("test_v4_integration")
    assert result.code == 0
    lines = result.out.splitlines()
    assert all(line.endswith(" ok") for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} checks hold"
    for value in ("13,824", "198,144", "146,849,792", "[2, 12, 16, 512, 64]"):
        assert value in result.out


@pytest.mark.shared
def test_the_integration_checks_hold_on_a_pretrained_model(
    script: Script, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL", str(shared / "models/stories260K"))
    assert script("test_v4_integration").code == 0


# ------------------------------------------------------------------ as programs


def program(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run from the project's root, as users do."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_quick_script_runs_everything(tmp_path: Path) -> None:
    done = program("bash", "scripts/test_v4_quick.sh", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for mode in MODES:
        assert re.search(rf"Step 5: loss=.* \[Mode: {mode}\]", done.stdout)
        assert re.search(rf"alignment: +{mode}, ", done.stdout)
    assert "checks hold" in done.stdout
    assert len(re.findall(r"^\+ .*python\S* experiments/", done.stdout, flags=re.M)) == 5
    assert list(tmp_path.glob("tmp.*")) == []


@pytest.mark.slow
def test_the_quick_script_stops_at_the_first_failure(tmp_path: Path) -> None:
    done = program("bash", "scripts/test_v4_quick.sh", TMPDIR=str(tmp_path), MODEL="/no/such/model")
    assert done.returncode == 1
    assert done.stdout.count("+ ") == 1
    assert done.stderr.splitlines()[-1].startswith("kava: error: the folder '/no/such/model'")
    assert list(tmp_path.glob("tmp.*")) == []
