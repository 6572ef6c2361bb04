"""What is trained is float32, whatever is loaded, cast or read in half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kava.cli import run
from kava.commands.profile import main as profile
from kava.commands.train import main as train_main
from kava.errors import KavaError
from kava.eviction import compress
from kava.models.load import load_model, load_tokenizer
from kava.models.rotary import rotary_of
from kava.rope import unrotate_trace
from kava.student.checkpoint import load_student
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from kava.train.precision import autocast_dtype
from train.runs import distiller_and_batch, small

FROZEN = {"teacher_name": "kava/shell-teacher"}
OTHER = {"teacher_name": "kava/shell-gpt2-teacher", "alignment_mode": "structured"}
JOINT = {**OTHER, "aligner_fit": "joint"}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """The share of the numbers that differ."""
    moved = sum(int(before[name].ne(after[name]).sum()) for name in before)
    return moved / sum(part.numel() for part in before.values())


def trainable(run: Run) -> dict[str, torch.Tensor]:
    named = run.trainer.model.named_parameters()
    return {name: part.detach().clone() for name, part in named if part.requires_grad}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True},
        {**FROZEN, "dtype": "bfloat16"},
        {**FROZEN, "dtype": "float16"},
        {**FROZEN, "dtype": "bfloat16", "bf16": True, "codi_weight": 1.0},
        {**FROZEN, "dtype": "bfloat16", "student": "explicit"},
        {**JOINT, "dtype": "float16"},
        {
            **JOINT,
            "dtype": "bfloat16",
            "bf16": True,
            "kv_loss": "structural",
            "kv_layer_std": False,
        },
    ],
    ids=lambda settings: " ".join(str(value) for value in settings.values()) or "plain",
)
def test_weights_that_get_gradients_move_in_float32_and_stay_finite(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    built = build_run(small(tmp_path, **{"weight_decay": 0.0, **settings}))
    before = trainable(built)
    assert {part.dtype for part in before.values()} == {torch.float32}
    learned: set[str] = set()
    for name, part in built.trainer.model.named_parameters():
        if part.requires_grad:
            part.register_hook(
                lambda gradient, name=name: learned.add(name) if gradient.any() else None
            )
    built.trainer.train()
    after = trainable(built)
    assert all(bool(part.isfinite().all()) for part in after.values())
    assert {part.dtype for part in after.values()} == {torch.float32}
    assert any(name.startswith("student.") for name in learned)
    assert any(name.startswith("map_aligner.") for name in learned) == ("aligner_fit" in settings)
    # rows of the embeddings that no text names have no gradient
    dense = [name for name in learned if "embed" not in name and "lm_head" not in name]
    assert changed({n: before[n] for n in dense}, {n: after[n] for n in dense}) > 0.99
    for name in ("model", "map_aligner"):
        saved = load_file(tmp_path / "checkpoint-4" / f"{name}.safetensors")
        assert {part.dtype for part in saved.values()} <= {torch.float32}
    config = json.loads((tmp_path / "checkpoint-4" / "config.json").read_text())
    assert config["dtype"] == "float32"


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_student_that_was_saved_in_bfloat16_is_trained_in_float32(
    student: str, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    load_model("kava/shell-llama", dtype="bfloat16").save_pretrained(folder)
    load_tokenizer("kava/shell-llama").save_pretrained(folder)
    settings: dict[str, Any] = {**FROZEN, "dtype": "bfloat16", "student": student}
    built = build_run(small(tmp_path / "run", model_name=str(folder), **settings))
    distiller = built.trainer.model
    assert distiller.teacher is not None
    assert {part.dtype for part in distiller.teacher.parameters()} == {torch.bfloat16}
    assert {part.dtype for part in distiller.parameters()} == {torch.float32}
    built.trainer.train()
    config = json.loads((tmp_path / "run" / "checkpoint-4" / "config.json").read_text())
    assert config["dtype"] == config.get("base_config", config)["dtype"] == "float32"
    assert load_student(tmp_path / "run").model.dtype == torch.float32
    assert load_student(tmp_path / "run", dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_half_teachers_cache_is_compared_in_float32() -> None:
    settings: dict[str, Any] = {**FROZEN, "dtype": "bfloat16", "kv_method": "right_crop"}
    distiller, batch = distiller_and_batch(small(**settings))
    teacher = distiller.teacher
    assert teacher is not None
    trace = distiller._read_teacher(batch).trace
    assert trace.keys.dtype == torch.bfloat16
    kept, _ = compress(trace, method="right_crop", target_len=3)
    expected = unrotate_trace(kept.to(dtype=torch.float32), rotary_of(teacher))
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            forward = distiller(batch)
        assert forward.target is not None
        assert forward.student is not None
        assert forward.target.trace.keys.dtype == forward.student.keys.dtype == torch.float32
        assert forward.loss.dtype == torch.float32
        assert torch.equal(forward.target.trace.keys, expected.keys)
        assert torch.equal(forward.target.trace.values, expected.values)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"bf16": True, "fp16": True}, "--bf16 and --fp16 exclude each other"),
        ({"dtype": "bfloat16"}, r"--dtype bfloat16 is the dtype of a frozen .* pass --bf16 to"),
        ({"dtype": "float16"}, r"--dtype float16 is the dtype of a frozen .* pass --fp16 to"),
        ({"dtype": "float16", "student": "explicit", "kv_weight": 0.0}, "pass --fp16 to compute"),
        ({"dtype": "int8", **FROZEN}, "choose float32, bfloat16, float16"),
    ],
)
def test_flags_of_precision_that_do_not_go_together(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        TrainConfig(**settings)


@pytest.mark.parametrize("main", [train_main, profile])
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_float16_autocast_needs_a_gpu(
    main: Any, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert run(main, ["--fp16", "--device", device, "--dataset_name", "no.jsonl"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kava: error: --fp16 scales the loss on a GPU, and --device {device}")
    assert "pass --bf16" in line


def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from kava.train.precision import check_device_precision

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ValueError, match="--bf16: Tesla T4 has no bfloat16; pass --fp16"):
        check_device_precision(TrainConfig(bf16=True), torch.device("cuda"))
    check_device_precision(TrainConfig(bf16=True), torch.device("cpu"))


def test_what_autocast_computes_in() -> None:
    assert autocast_dtype(TrainConfig()) is None
    assert autocast_dtype(TrainConfig(bf16=True)) == torch.bfloat16
    assert autocast_dtype(TrainConfig(fp16=True)) == torch.float16


class Scaler:
    def __init__(self, scale: float):
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


def test_an_overflow_of_the_scaled_loss_is_left_out_and_counted(tmp_path: Path) -> None:
    trainer = build_run(small(tmp_path)).trainer
    batch = trainer.data_collator(list(trainer.train_dataset)[:2])
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=None).backward()
    part = next(p for p in trainer.model.parameters() if p.grad is not None)
    assert part.grad is not None
    part.grad.fill_(float("inf"))
    trainer.accelerator.scaler = Scaler(1024.0)
    assert trainer._get_grad_norm(trainer.model) is None
    assert trainer.recorder.record.nonfinite_steps == 1
    assert trainer.recorder.record.grad_norm_max == 0.0
    trainer.accelerator.scaler = Scaler(1.0)  # no scale is left to lower
    with pytest.raises(KavaError, match="the gradient norm is"):
        trainer._get_grad_norm(trainer.model)
    trainer.accelerator.scaler = None
    with pytest.raises(KavaError, match="the gradient norm is"):
        trainer._get_grad_norm(trainer.model)
