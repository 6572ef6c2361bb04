"""Processes that share out the student's weights (FSDP 2) train as one process does.

accelerate shares out weights on GPUs alone. Here it is let do so with gloo on the CPU.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.launcher import OTHERS, check_launcher
from kava.train.sharded import gathered, shards_of, whole_state
from launch import launch
from train.test_processes import OTHER, RUN, assert_same, assert_same_weights, rows_of, train

FLAGS = [*OTHER, "--save_steps", "4", "--eval_steps", "4", "--eval_first"]
PROGRAM = """
import sys
sys.path.insert(0, "src")
from accelerate import PartialState
from accelerate.utils import DistributedType
from kava.train import build, resumable, sharded, trainer

made = trainer.training_arguments
def arguments(*args):
    found = made(*args)
    assert found.device.type == "cpu"
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return found
trainer.training_arguments = arguments
check = build.check_launcher
build.check_launcher = lambda config, device: check(config, sharded.torch.device("cuda"))
state = sharded.whole_state
def counting(model):
    print("parts:", len(sharded.shards_of(model)))
    return state(model)
sharded.whole_state = counting
from kava.cli import main
main()
"""
"""`kava`, with accelerate's FSDP on the CPU."""


def sharded(folder: Path, program: Path, *flags: str) -> list[dict[str, Any]]:
    """Start `kava train` in two processes that share out the weights; the rows it logged."""
    program.write_text(PROGRAM, encoding="utf-8")
    accelerate = ["-m", "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2"]
    accelerate += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    accelerate += ["--dynamo_backend", "no", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    accelerate += ["--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer"]
    accelerate += ["--fsdp_cpu_ram_efficient_loading", "false"]
    argv = ["train", *RUN, "--output_dir", str(folder), *flags]
    done = launch(argv, program=[*accelerate, str(program)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "parts: 3" in done.stdout  # two layers, and the rest
    return rows_of(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(folder, *FLAGS, "--batch_size", "8")


def assert_same_evaluations(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    ours, theirs = ([row for row in rows if "eval_ce" in row] for rows in (ours, theirs))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for one, other in zip(ours, theirs):
        for name in ("eval_ce", "eval_kv", "eval_kv_wrong_sample", "eval_accuracy"):
            if not math.isnan(other[name]):
                assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), name


@pytest.mark.slow
def test_shared_out_weights_train_as_whole_ones(
    tmp_path: Path, alone: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, rows = alone
    ours = sharded(tmp_path / "run", tmp_path / "kava.py", *FLAGS, "--batch_size", "4")
    assert_same(ours, rows)
    assert_same_evaluations(ours, rows)
    assert_same_weights(tmp_path / "run", folder, 12)
    files = {path.name for path in (folder / "checkpoint-12").iterdir()} - {"rng_state.pth"}
    there = {path.name for path in (tmp_path / "run/checkpoint-12").iterdir()}
    assert there == files | {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.slow
def test_a_run_goes_on_with_shared_out_weights_and_back(
    tmp_path: Path, alone: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, rows = alone
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    for step in (8, 12):
        shutil.rmtree(run / f"checkpoint-{step}")
    ours = sharded(run, tmp_path / "kava.py", *FLAGS, "--batch_size", "4", "--resume")
    assert_same(ours, rows)
    assert_same_weights(run, folder, 12)
    shutil.rmtree(run / "checkpoint-12")
    assert_same(train(run, *FLAGS, "--batch_size", "8", "--resume"), rows)
    assert_same_weights(run, folder, 12)


def test_whole_weights_are_as_they_are() -> None:
    model = torch.nn.Linear(2, 3)
    with gathered(model):
        assert shards_of(model) == []
    state = whole_state(model)
    assert all(torch.equal(part, state[name]) for name, part in model.state_dict().items())


REFUSED: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "CPU": ({}, {"device": "cpu"}, "ACCELERATE_USE_FSDP=true on the CPU: .* leave out --use_fsdp"),
    "version": ({"FSDP_VERSION": "1"}, {}, "FSDP 1 is not supported: pass --fsdp_version 2"),
    "loading": ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "_efficient_loading false"),
    "lora": ({}, {"lora_r": 4}, "--lora_r has not been tried with weights that processes share"),
    "optim": ({}, {"optim": "adafactor"}, "--optim adafactor has not been tried"),
    "precision": (
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        {},
        "bf16 sets a precision .* pass --bf16 to kava",
    ),
    "fp8": ({"ACCELERATE_MIXED_PRECISION": "fp8"}, {"bf16": True}, ": pass --mixed_precision no"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_shared_out_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, changes, message = REFUSED[what]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    device = torch.device(changes.pop("device", "cuda"))
    config = TrainConfig(output_dir="unused")
    check_launcher(config, torch.device("cuda"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        check_launcher(config, device)


@pytest.mark.parametrize("name", OTHERS)
def test_other_launchers_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=rf"{name}=true: kava train does not work with "):
        build_run(TrainConfig(output_dir=str(tmp_path / "run"), device="cpu"))
    assert not (tmp_path / "run").exists()
