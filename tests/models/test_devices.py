"""The device that `--device` names: one function, and the same line in every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kava.cli import run
from kava.commands.calibrate import main as calibrate
from kava.commands.compare_evictions import main as compare_evictions
from kava.commands.costs import main as costs
from kava.commands.demo import main as demo
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import main as generate_main
from kava.commands.layer_map import main as layer_map
from kava.commands.lm_eval import main as lm_eval
from kava.commands.profile import main as profile
from kava.commands.rationales import main as rationales
from kava.commands.study import main as study
from kava.commands.train import main as train
from kava.models.devices import check_device_name, choose_device
from kava.train.arguments import training_arguments, use_one_device
from kava.train.config import TrainConfig
from one_line import refusal

NOWHERE = "no.jsonl"  # data that would be complained of if they were read first
DATA = ["--dataset_name", NOWHERE]
PAIR = ["--model_name", "kava/tiny-llama", "--teacher_name", "kava/tiny-gpt2"]

COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "train": (train, DATA),
    "evaluate": (evaluate_main, ["kava/tiny-gpt2", *DATA]),
    "tasks": (evaluate_main, ["kava/tiny-gpt2", "--tasks", f"gsm8k:{NOWHERE}"]),
    "generate": (generate_main, ["kava/tiny-gpt2", "--input", NOWHERE]),
    "costs": (costs, ["kava/tiny-gpt2", *DATA]),
    "calibrate": (calibrate, [*PAIR, *DATA, "--output_dir", "no"]),
    "layer-map": (
        layer_map,
        ["--student_model=kava/tiny-llama", "--teacher_model=kava/tiny-gpt2", *DATA],
    ),
    "profile": (profile, DATA),
    "compare_evictions": (compare_evictions, DATA),
    "lm-eval": (lm_eval, ["--model", "kava", "--model_args", "pretrained=no", "--tasks", "no"]),
    "demo": (demo, []),
    "rationales": (
        rationales,
        ["--teachers", "kava/tiny-gpt2", *DATA, "--output", "rows.jsonl"],
    ),
}


def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def cuda_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("abacus", "--device 'abacus' is unknown; choose auto, cpu, cuda, cuda:N"),
        ("cuda", "--device cuda: no CUDA device is visible"),
    ],
)
def test_every_command_says_what_is_wrong_before_it_reads(
    command: str,
    name: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    no_cuda(monkeypatch)
    monkeypatch.chdir(tmp_path)
    main, flags = COMMANDS[command]
    assert f": error: {complaint}" in refusal(main, [*flags, "--device", name], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "complaint"), [("abacus", "is unknown"), ("cuda", "no CUDA device is visible")]
)
def test_a_study_says_it_before_its_first_run(
    name: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    no_cuda(monkeypatch)
    monkeypatch.chdir(tmp_path)
    from kava.study.plan_file import shipped_plans

    plan = shipped_plans()["baselines"].read_text(encoding="utf-8")
    assert "device: cpu" in plan
    (tmp_path / "plan.yaml").write_text(plan.replace("device: cpu", f"device: {name}"))
    assert run(study, ["run", "plan.yaml"]) == 1
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_a_name_of_a_device(name: str) -> None:
    check_device_name(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "meta", "cpu:0"])
def test_a_bad_name_lists_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose auto, cpu, cuda, cuda:N \(N = 0, 1, …\) or mps"):
        choose_device(name)


@pytest.mark.parametrize(
    ("built", "visible", "reason", "mend"),
    [
        (None, None, f"torch {torch.__version__} was built for CPU", "install a CUDA build"),
        ("12.8", "", "CUDA_VISIBLE_DEVICES=''", "unset it"),
        ("12.8", "5", "CUDA_VISIBLE_DEVICES='5'", "unset it"),
        ("12.8", None, "finds no driver or no GPU", "look at nvidia-smi"),
    ],
)
def test_why_no_cuda_device_is_visible(
    built: str | None,
    visible: str | None,
    reason: str,
    mend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_cuda(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ValueError, match="no CUDA device is visible") as caught:
        choose_device("cuda:1")
    assert f"{reason})" in str(caught.value)
    assert f"{mend}" in str(caught.value)
    assert str(caught.value).endswith("or pass --device cpu")


@pytest.mark.parametrize(
    ("count", "complaint"),
    [
        (1, "--device cuda:7: 1 CUDA device is visible; choose cuda:0"),
        (4, "--device cuda:7: 4 CUDA devices are visible; choose cuda:0 to cuda:3"),
    ],
)
def test_a_number_out_of_range_says_how_many_there_are(
    count: int, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_devices(monkeypatch, count)
    with pytest.raises(ValueError, match=complaint):
        choose_device("cuda:7")


def test_an_apple_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device mps: no Apple GPU"):
        choose_device("mps")


def test_auto_takes_the_accelerator_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert choose_device("auto") == "cuda"


def test_a_process_trains_on_the_gpu_that_was_named_and_on_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = training_arguments(TrainConfig(device="cpu"), False, False)
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    arguments._n_gpu = 4  # as the library counts where four are visible
    use_one_device(arguments, torch.device("cuda:2"))
    assert taken == [torch.device("cuda:2")]
    assert arguments.device == torch.device("cuda:2")
    assert arguments.n_gpu == 1
