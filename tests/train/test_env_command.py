"""`kava env`: what it chooses, where that comes from, and that `kava train` would take the same."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.cli import run
from kava.commands.env import job_text, main
from kava.errors import KavaError
from kava.machine.allocation import Allocation
from kava.models import accelerators as devices
from kava.models.accelerators import Accelerator
from kava.train import auto_batch
from kava.train.build import prepare
from kava.train.choice import precision_for
from kava.train.flags import parse_config
from kava.train.variables import KNOWN
from one_line import refusal

TINY = ["--model_name", "kava/shell-llama", "--dataset_name", "kava/shell-game?num_train=64"]
TINY += ["--target_len", "3", "--device", "cpu"]


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KNOWN, "SLURM_JOB_ID", "PBS_JOBID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for eight samples, where a sample takes a gigabyte."""
    monkeypatch.setattr(auto_batch, "free_bytes", lambda device: 10 * 10**9)
    monkeypatch.setattr(auto_batch, "state_bytes", lambda optim, module: 0)
    monkeypatch.setattr(auto_batch, "_peak", lambda c, d, batch, _: 10**9 * len(batch["ids"]))


def found(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """The JSON of a call that succeeds."""
    assert run(main, ["--json", *flags]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    (line,) = printed.out.splitlines()
    return dict(json.loads(line))


def chosen(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """What a call chooses: value and origin by name."""
    choices = found(capsys, *flags)["choices"]
    return {name: (one["value"], one["origin"]) for name, one in choices.items()}


def test_the_whole_command_on_the_built_in_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(main, TINY) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    names = {line.split()[0] for line in lines if line}
    assert {"scheduler", "cores", "memory", "precision", "batch_size"} <= names
    assert f"chosen for kava/shell-llama, on {TINY[3]}" in lines
    assert list(tmp_path.iterdir()) == []  # nothing is written
    # the last line runs, and says what was chosen
    command = shlex.split(lines[-1].removeprefix("run: "))
    assert command[:2] == ["kava", "train"]
    config = parse_config(command[2:])
    (row,) = (line.split() for line in lines if line.startswith("batch_size"))
    assert config.batch_size == int(row[1]) > 0
    assert config.batch_size * config.gradient_accumulation_steps == 8
    assert config.target_len == 3


@pytest.mark.parametrize(
    "flags",
    [["--effective_batch_size", "4"], ["--effective_batch_size", "24"], ["--bf16"], []],
)
def test_the_size_is_that_of_a_run_with_batch_size_auto(
    flags: list[str],
    room: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [*TINY, *flags, "--batch_size", "auto"]
    config = parse_config([*asked, "--output_dir", str(tmp_path / "run")])
    line = prepare(config).batch_line
    capsys.readouterr()
    choices = found(capsys, *asked)["choices"]
    assert choices["batch_size"]["value"] == config.batch_size
    assert choices["gradient_accumulation_steps"]["value"] == config.gradient_accumulation_steps
    assert line is not None
    assert line.endswith(f"since {choices['batch_size']['reason']}")
    assert choices["batch_size"]["value"] == (4 if flags[-1:] == ["4"] else 8)


def test_without_a_size_a_step_keeps_its_samples(
    room: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(capsys, *TINY)["batch_size"] == (8, "measured")
    monkeypatch.setattr(auto_batch, "free_bytes", lambda device: 3 * 10**9)
    choices = chosen(capsys, *TINY)
    assert choices["batch_size"] == (2, "measured")
    assert choices["gradient_accumulation_steps"] == (4, "default")


def test_a_flag_goes_before_a_variable_and_a_variable_before_what_is_found(
    room: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def sizes(*flags: str) -> tuple[Any, Any]:
        choices = chosen(capsys, *TINY, *flags)
        return choices["batch_size"], choices["gradient_accumulation_steps"]

    monkeypatch.setenv("KAVA_EFFECTIVE_BATCH_SIZE", "4")
    assert sizes() == ((4, "measured"), (1, "KAVA_EFFECTIVE_BATCH_SIZE"))
    monkeypatch.setenv("KAVA_BATCH_SIZE", "2")
    monkeypatch.setenv("KAVA_BF16", "1")
    assert sizes() == ((2, "KAVA_BATCH_SIZE"), (2, "KAVA_EFFECTIVE_BATCH_SIZE"))
    assert chosen(capsys, *TINY)["precision"] == ("bf16", "KAVA_BF16")
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: 1\n")
    assert sizes("--config", str(file))[0] == (1, f"--config {file}")
    one = (4, "--batch_size")
    assert sizes("--batch_size", "4", "--gradient_accumulation_steps", "3") == (
        one,
        (3, "--gradient_accumulation_steps"),
    )
    run(main, [*TINY, "--batch_size", "4"])
    assert "KAVA_BATCH_SIZE=2, not used: a flag or a file says otherwise" in capsys.readouterr().out


def test_without_measuring_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(config: object) -> None:
        raise AssertionError(config)

    monkeypatch.setattr("kava.train.choice.prepare", load)
    seen = found(capsys, "--measure", "false", "--model_name", "nobody/nothing")
    assert seen["choices"]["batch_size"] == {
        "value": None,
        "origin": "not measured",
        "reason": "kava train --batch_size auto finds it by steps",
    }
    assert seen["command"] == "kava train --model_name nobody/nothing"


def test_the_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    monkeypatch.setenv("KAVA_DEVICE", "cpu")
    monkeypatch.setenv("KAVA_SERVICE_HOST", "x")
    seen = found(capsys, "--measure", "false")
    assert seen["scheduler"] == {"name": "slurm", "in_job": True, "reason": "SLURM_JOB_ID=4711"}
    assert seen["job"]["memory"] == 2 * 2**30
    assert seen["memory"]["limit"] == 2 * 2**30
    assert 0 < seen["memory"]["available"] < 2 * 2**30
    assert 1 <= seen["cores"]["usable"] <= seen["cores"]["total"]
    assert seen["variables"] == {"KAVA_DEVICE": "cpu"}
    assert seen["unread"] == [
        "KAVA_SERVICE_HOST is no variable that KaVa reads: it changes nothing"
    ]
    assert seen["choices"]["device"]["origin"] == "KAVA_DEVICE"


AMPERE = Accelerator("cuda:0", "NVIDIA A100", 40 * 10**9, 39 * 10**9, (8, 0), True)
TURING = Accelerator("cuda:0", "Tesla T4", 16 * 10**9, 15 * 10**9, (7, 5), False)
PASCAL = Accelerator("cuda:0", "Tesla P100", 16 * 10**9, 15 * 10**9, (6, 0), False)
AMD = Accelerator("cuda:0", "AMD Instinct MI250X", 64 * 10**9, 63 * 10**9, None, True)
APPLE = Accelerator("mps", "Apple GPU", None, None, None, False)


@pytest.mark.parametrize(
    ("one", "precision"),
    [
        (AMPERE, "bf16"), (TURING, "fp16"), (PASCAL, "float32"), (AMD, "bf16"),
        (APPLE, "float32"), (None, "float32"),
    ],
)  # fmt: skip
def test_the_precision_is_what_the_device_has(one: Accelerator | None, precision: str) -> None:
    value, _, reason = precision_for(one)
    assert value == precision
    assert one is None or one.model in reason


def test_a_gpu_is_shown_and_its_precision_is_a_flag_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("kava.models.accelerators", "kava.train.choice"):
        monkeypatch.setattr(f"{name}.accelerators", lambda: [AMPERE])
        monkeypatch.setattr(f"{name}.why_no_cuda", lambda: None)
    monkeypatch.setattr("kava.train.choice.choose_device", lambda name: "cuda")
    flags = ["--measure", "false", "--model_name", "gpt2"]
    assert run(main, flags) == 0
    printed = capsys.readouterr().out
    line = "cuda:0 NVIDIA A100, 39.0 GB of 40.0 GB free, compute capability 8.0"
    assert [line in row for row in printed.splitlines()].count(True) == 2
    assert "no CUDA" not in printed
    assert printed.splitlines()[-1] == "run: kava train --model_name gpt2 --bf16"
    assert chosen(capsys, *flags, "--bf16", "false")["precision"] == ("float32", "--bf16")
    assert chosen(capsys, *flags, "--fp16")["precision"] == ("fp16", "--fp16")
    both = ("--bf16", "false", "--fp16")
    assert chosen(capsys, *flags, *both)["precision"] == ("fp16", "--fp16")


def test_the_devices_that_cuda_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    class About:
        name, major, minor = "Tesla T4", 7, 5

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: About)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (15 * 10**9, 16 * 10**9))
    assert devices.accelerators() == [TURING, TURING._replace(device="cuda:1")]
    assert devices.why_no_cuda() is None


def test_the_share_of_a_job_in_words() -> None:
    job = Allocation("4711", "gpu", 2, 8, 16, 64 * 10**9, 4, limit=7200, left=90)
    assert job_text(job) == (
        "queue gpu, 2 nodes, 8 tasks, 16 cores here, 64.0 GB here, 4 GPUs here, limit 02:00:00, "
        "00:01:30 left"
    )
    assert job_text(Allocation("4711")) == "no time limit that it tells"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--batchsize", "4"], "unknown flag --batchsize (did you mean --batch_size"),
        (["--measure", "maybe"], "'maybe' stands behind no flag"),
        (["--batch_size", "4", "--effective_batch_size", "6"], "is no multiple of --batch_size 4"),
        (["--device", "cuda", "--measure", "false"], "no CUDA device is visible"),
        (["--config", "gone.yaml"], "--config gone.yaml: no such file"),
        (["--trust_remote_code"], "is refused on purpose"),
    ],
)
def test_wrong_flags_are_one_line(
    flags: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert line in refusal(main, ["--json", *flags], capsys)


def test_a_model_that_does_not_fit_is_said_behind_the_machine(
    room: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auto_batch, "free_bytes", lambda device: 10**9)
    with pytest.raises(KavaError, match="a step of one sample takes"):
        main(TINY)
    assert "memory " in capsys.readouterr().out
