"""A frozen base in bfloat16 under LoRA adapters in float32: sound, resumable, merged exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, interrupted, metrics, run, small, weights
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kava.commands.export import main as export
from kava.commands.merge import main as merge
from kava.models.load import load_model
from kava.models.lora import LoraForm, add_lora, merge_lora
from kava.student.checkpoint import load_student
from kava.student.config import base_of

HALF: dict[str, Any] = {"lora_r": 4, "dtype": "bfloat16"}
CASES: dict[str, dict[str, Any]] = {
    "latent": {},
    "jacobi": {"decoding": "jacobi", "jacobi_iterations": 2},
    "reads": {"teacher_name": "kava/shell-teacher", "text_ce_weight": 1.0, "inject_weight": 1.0},
    "adapter off": {"adapter_off": True, "codi_weight": 1.0},
    "autocast": {"bf16": True},
    "explicit": {"student": "explicit", "teacher_name": "kava/shell-llama", "kv_method": "uniform"},
    "recomputed": {"gradient_checkpointing": True},
    "gpt2": {"model_name": "kava/shell-gpt2"},
}


def stir(model: torch.nn.Module) -> None:
    """Give the adapters an effect: B starts at zero."""
    generator = torch.Generator().manual_seed(3)
    for name, part in model.named_parameters():
        if "lora_B" in name:
            part.data.copy_(0.1 * torch.randn(part.shape, generator=generator))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_close_to_float32s_and_every_gradient_is_float32(case: str) -> None:
    losses, gradients = [], []
    for dtype in ("float32", "bfloat16"):
        changes = {**CASES[case], **HALF, "dtype": dtype}
        distiller, batch = distiller_and_batch(small(**changes))
        stir(distiller)
        base = base_of(distiller.student)
        frozen = {part.dtype for part in base.parameters() if not part.requires_grad}
        assert frozen == {getattr(torch, dtype)}
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in changes):
            loss = distiller(batch).loss
        loss.backward()
        trained = {n: p for n, p in distiller.named_parameters() if p.requires_grad}
        assert {part.dtype for part in trained.values()} == {torch.float32}
        assert all(part.grad is not None for part in trained.values())
        losses.append(loss.item())
        gradients.append(torch.cat([part.grad.flatten() for part in trained.values()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    changes = {**HALF, "max_steps": 4, "save_steps": 2, "eval_size": 2, "eval_steps": 2}
    whole = run(small(tmp_path / "whole", **changes))
    interrupted(small(tmp_path / "cut", **changes), 3)
    resumed = run(small(tmp_path / "cut", **changes, resume=True))
    ours, theirs = (weights(one.trainer.model) for one in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = [[row["loss"] for row in metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_a_run_of_an_earlier_version_goes_on_in_float32_alone(tmp_path: Path) -> None:
    changes = {**HALF, "teacher_name": "kava/shell-teacher", "max_steps": 2}
    run(small(tmp_path, **changes))
    path = tmp_path / "checkpoint-2" / "kava.json"
    path.write_text(path.read_text().replace('"base_dtype": "bfloat16",', ""))
    (tmp_path / "checkpoint-2" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="was read in float32, by an earlier version"):
        run(small(tmp_path, **changes, resume=True))


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_checkpoint_is_loaded_as_it_was_trained_and_merged_in_float32(
    student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {} if student == "latent" else {"student": "explicit", "kv_weight": 0}
    run(small(tmp_path / "run", **{**HALF, **changes, "lr": 0.05}))
    path = tmp_path / "run" / "checkpoint-4"
    stored = load_file(path / "adapter" / "adapter_model.safetensors")
    assert {part.dtype for part in stored.values()} == {torch.float32}
    model = load_student(path).model
    base = base_of(model)
    assert base.dtype == torch.bfloat16
    for name, part in model.named_parameters():
        adds = "lora_" in name or (student == "latent" and not name.startswith("base."))
        assert part.dtype == (torch.float32 if adds else torch.bfloat16), name
    wide = base_of(load_student(path, dtype="float32").model)
    assert {part.dtype for part in wide.parameters()} == {torch.float32}

    assert merge([str(path), "--output_dir", str(tmp_path / "merged")]) == 0
    assert export([str(path), "--output_dir", str(tmp_path / "exported")]) == 0
    capsys.readouterr()
    merge_lora(wide)
    for name in ("merged", "exported"):
        again = load_student(tmp_path / name).model
        assert {part.dtype for part in again.parameters()} == {torch.float32}
        theirs = base_of(again).state_dict()
        assert all(torch.equal(part, theirs[key]) for key, part in wide.state_dict().items())


def test_the_sum_with_the_adapters_is_not_rounded() -> None:
    model = load_model("kava/tiny-llama", dtype="bfloat16")
    add_lora(model, LoraForm(rank=2, alpha=4.0))
    stir(model)
    layer = model.model.layers[0].self_attn.q_proj
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = layer.base_layer.weight.float() + 2.0 * product
    merge_lora(model)
    torch.testing.assert_close(model.model.layers[0].self_attn.q_proj.weight, expected)


def test_other_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="pass --dtype bfloat16, or --fp16 to compute in float16"):
        small(**{**HALF, "dtype": "float16"})
    with pytest.raises(ValueError, match="is trained in float32; pass --bf16 to compute"):
        small(dtype="bfloat16")
    teacher = {"teacher_name": "kava/shell-teacher", "dtype": "float16", "lora_r": 4}
    assert small(**teacher).base_dtype == "float32"


def test_transformers_loads_a_latent_student_with_adapters(tmp_path: Path) -> None:
    run(small(tmp_path, **HALF, max_steps=1))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    expected = load_student(tmp_path / "checkpoint-1").model
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(part, theirs[name]) for name, part in ours.items())
    assert {part.dtype for part in ours.values()} == {torch.bfloat16, torch.float32}
