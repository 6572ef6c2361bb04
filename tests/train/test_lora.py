"""LoRA: what is trained, what is saved, and the teacher that the base without adapters is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, interrupted, metrics, run, small, weights
from safetensors.torch import load_file
from torch import Tensor

from families import FAMILIES, VOCAB_SIZE
from kava.cli import run as command
from kava.commands.merge import main as merge
from kava.models.capture import capture
from kava.models.load import load_model, load_tokenizer
from kava.models.lora import (
    ADAPTER_WEIGHTS,
    LoraForm,
    add_lora,
    linear_layers,
    load_adapters,
    lora_off,
    merge_lora,
    save_adapters,
)
from kava.student.checkpoint import load_student
from kava.train.models import build_distiller

LORA: dict[str, Any] = {"lora_r": 4, "lora_alpha": 8.0}
IDS = torch.arange(12).view(2, 6) % VOCAB_SIZE


def stir(model: torch.nn.Module) -> None:
    """Give the adapters an effect: B starts at zero."""
    generator = torch.Generator().manual_seed(3)
    for name, part in model.named_parameters():
        if "lora_B" in name:
            part.data.copy_(0.2 * torch.randn(part.shape, generator=generator))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_adapters_change_what_is_read_and_can_be_turned_off_saved_and_merged(
    family: str, tmp_path: Path
) -> None:
    model, again = FAMILIES[family](), FAMILIES[family]()
    before = capture(model, IDS)[1]
    form = LoraForm(rank=2, alpha=4.0)
    add_lora(model, form, family)
    assert torch.equal(capture(model, IDS)[1].keys, before.keys)
    stir(model)
    changed = capture(model, IDS)[1]
    assert not torch.allclose(changed.keys, before.keys, atol=1e-3)
    with lora_off(model):
        assert torch.equal(capture(model, IDS)[1].keys, before.keys)
    trained = {name for name, part in model.named_parameters() if part.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    save_adapters(tmp_path, model)
    add_lora(again, form, family)
    load_adapters(tmp_path, again)
    assert torch.equal(capture(again, IDS)[1].keys, changed.keys)
    merge_lora(again)
    torch.testing.assert_close(capture(again, IDS)[1].keys, changed.keys, atol=1e-5, rtol=1e-4)
    assert again.state_dict().keys() == FAMILIES[family]().state_dict().keys()


def test_the_targets_are_those_that_are_named() -> None:
    model = FAMILIES["llama"]()
    assert linear_layers(model) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    add_lora(model, LoraForm(rank=2, alpha=4.0, targets=("q_proj",)))
    names = [name for name, _ in model.named_parameters() if ".lora_" in name]
    assert len(names) == 2 * model.config.num_hidden_layers
    assert all(".q_proj." in name for name in names)


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_step_trains_adapters_and_what_the_student_adds(student: str, tmp_path: Path) -> None:
    changes = {"teacher_name": "kava/shell-llama"} if student == "explicit" else {}
    config = small(tmp_path, student=student, **LORA, **changes)
    before = weights(build_distiller(config).student)
    after = weights(run(config).trainer.model.student)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {name for name in before if ".lora_" in name}
    if student == "latent":
        expected |= {name for name in before if not name.startswith("base.")}
    # the first latent's keys need no adapter of the last layer's output
    assert moved <= expected
    assert len(moved) > 0.8 * len(expected)
    folder = tmp_path / "checkpoint-4"
    stored = load_file(folder / "adapter" / ADAPTER_WEIGHTS)
    assert len(stored) == sum(".lora_" in name for name in before)
    added = load_file(folder / "model.safetensors") if student == "latent" else {}
    assert not any(name.startswith("base.") for name in added)
    whole = sum(part.numel() for part in before.values())
    saved = sum(part.numel() for part in [*stored.values(), *added.values()])
    assert saved < 0.4 * whole


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_checkpoint_answers_as_the_run_and_as_its_merged_form(
    student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"teacher_name": "kava/shell-llama"} if student == "explicit" else {}
    config = small(tmp_path / "run", student=student, lr=0.05, **LORA, **changes)
    trained = run(config).trainer.model.student.eval()
    loaded = load_student(tmp_path / "run").model
    assert command(merge, [str(tmp_path / "run"), "--output_dir", str(tmp_path / "whole")]) == 0
    merged = load_student(tmp_path / "whole").model
    assert not any(".lora_" in name for name in merged.state_dict())
    prompt = torch.tensor([[5, 6, 7, 8]])

    def logits(model: Any) -> Tensor:
        if student == "latent":
            return model(prompt, None, torch.tensor([[3, 4]])).logits
        return model(prompt).logits

    with torch.no_grad():
        assert torch.equal(logits(loaded), logits(trained))
        torch.testing.assert_close(logits(merged), logits(trained), atol=1e-4, rtol=1e-4)
        plain = small(tmp_path / "plain", student=student, **changes)
        assert not torch.allclose(logits(build_distiller(plain).student), logits(trained))
    assert command(merge, [str(tmp_path / "whole"), "--output_dir", str(tmp_path / "again")]) == 1
    assert "has no LoRA adapters: it is whole already" in capsys.readouterr().err


def test_a_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    options = {**LORA, "lora_dropout": 0.1, "save_steps": 2, "max_steps": 4}
    whole = run(small(tmp_path / "whole", **options))
    interrupted(small(tmp_path / "part", **options), 3)
    resumed = run(small(tmp_path / "part", **options, resume=True))
    ours, theirs = weights(resumed.trainer.model), weights(whole.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert metrics(tmp_path / "part")[-1]["loss"] == metrics(tmp_path / "whole")[-1]["loss"]


def test_the_teacher_without_adapters_is_the_model_that_it_began_as(tmp_path: Path) -> None:
    own, batch = distiller_and_batch(small(adapter_off=True, text_ce_weight=0.0, **LORA))
    other, _ = distiller_and_batch(
        small(teacher_name="kava/shell-llama", text_ce_weight=0.0, **LORA)
    )
    assert own.teacher is own.base
    assert other.teacher is not other.base
    for one in (own, other):
        stir(one.student)
        one.train()
    ours, theirs = own(batch), other(batch)
    assert torch.equal(ours.loss, theirs.loss)
    ours.loss.backward()
    theirs.loss.backward()
    pairs = zip(own.student.named_parameters(), other.student.parameters())
    for (name, mine), yours in pairs:
        assert (mine.grad is None) == (yours.grad is None), name
        assert mine.grad is None or torch.equal(mine.grad, yours.grad), name
    run(small(tmp_path, teacher_name="adapter_off", **LORA))
    settings = json.loads((tmp_path / "checkpoint-4" / "kava.json").read_text())
    assert settings["config"]["adapter_off"]
    assert settings["config"]["teacher_name"] == "kava/shell-llama"


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_self_distillation_shares_the_prompt_through_the_adapters(dropout: float) -> None:
    """The gradients of a shared prompt are those of passes that each read it."""
    distiller, batch = distiller_and_batch(small(**{**LORA, "lora_dropout": dropout}))
    stir(distiller.student)
    distiller.eval()  # the student's own passes drop nothing, as the teacher's never do

    def gradients(shared: bool) -> dict[str, Tensor]:
        distiller.zero_grad()
        distiller({**batch, "shared_prompt": shared}).loss.backward()
        return {
            name: part.grad.clone()
            for name, part in distiller.student.named_parameters()
            if part.grad is not None
        }

    together, apart = gradients(True), gradients(False)
    assert together.keys() == apart.keys()
    assert any(".lora_A" in name for name in together)
    for name, part in together.items():
        torch.testing.assert_close(part, apart[name], atol=1e-5, rtol=1e-3)


def test_full_rank_moves_the_model_where_full_training_does() -> None:
    """Of a layer W, B·A of full rank with A orthogonal: −dL/dB·A is −dL/dW."""
    whole, batch = distiller_and_batch(small())
    rank = whole.base.config.hidden_size
    adapted, _ = distiller_and_batch(
        small(lora_r=rank, lora_alpha=float(rank), lora_targets=["q_proj", "o_proj"])
    )
    for name, part in adapted.student.named_parameters():
        if "lora_A" in name:
            torch.nn.init.orthogonal_(part)
    state = whole.student.state_dict()
    own = adapted.student.state_dict()
    adapted.student.load_state_dict(
        {name: state.get(name.replace(".base_layer", ""), own[name]) for name in own}
    )
    for one in (whole, adapted):
        one(batch).loss.backward()
    full = {name: part.grad for name, part in whole.student.named_parameters()}
    found = dict(adapted.student.named_parameters())
    seen = 0
    for name, part in found.items():
        if "lora_B" not in name:
            continue
        weight = name.replace(".lora_B.default", "")
        through = part.grad @ found[name.replace("lora_B", "lora_A")]
        cosine = torch.cosine_similarity(through.flatten(), full[weight].flatten(), dim=0)
        assert cosine > 0.999, name
        seen += 1
    assert seen == 2 * whole.base.config.num_hidden_layers


def test_peft_loads_the_adapters(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = small(tmp_path, student="explicit", teacher_name="kava/shell-llama", lr=0.05, **LORA)
    trained = run(config).trainer.model.student.eval()
    base = load_model("kava/shell-llama", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "checkpoint-4" / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, trained(IDS).logits)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_targets": ["q_proj"]}, "--lora_targets ['q_proj'] is of LoRA adapters"),
        ({"lora_dropout": 0.1}, "--lora_dropout 0.1 is of LoRA adapters"),
        ({"lora_alpha": 16.0}, "--lora_alpha 16 is of LoRA adapters"),
        ({"lora_r": 4, "lora_alpha": 0.0}, "--lora_alpha 0 scales what the adapters add by 0"),
        ({"adapter_off": True}, "there are none: pass --lora_r"),
        (
            {"adapter_off": True, "teacher_name": "kava/shell-teacher", **LORA},
            "leave out --teacher_name",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        small(**changes)


def test_targets_that_match_nothing_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="--lora_targets c_attn matches no layer of Llama") as it:
        build_distiller(small(lora_targets=["c_attn"], **LORA))
    assert "down_proj, gate_proj" in str(it.value)


def test_whole_weights_and_adapters_are_not_mixed(tmp_path: Path) -> None:
    run(small(tmp_path / "whole"))
    run(small(tmp_path / "lora", **LORA))
    with pytest.raises(ValueError, match="holds whole weights, and this student has LoRA"):
        build_distiller(small(start_from=str(tmp_path / "whole"), **LORA))
    with pytest.raises(ValueError, match="holds LoRA adapters, and this student has none"):
        build_distiller(small(start_from=str(tmp_path / "lora")))


def test_a_base_that_is_gone_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    load_model("kava/shell-llama", dtype=torch.float32).save_pretrained(base)
    load_tokenizer("kava/shell-llama").save_pretrained(base)
    run(small(tmp_path / "run", model_name=str(base), **LORA))
    assert load_student(tmp_path / "run").settings["student"] == "latent"
    base.rename(tmp_path / "moved")
    with pytest.raises(OSError, match=r"holds LoRA adapters for .*base, which cannot be loaded"):
        load_student(tmp_path / "run")


def test_a_cut_adapter_file_is_found(tmp_path: Path) -> None:
    run(small(tmp_path, **LORA))
    file = tmp_path / "checkpoint-4" / "adapter" / ADAPTER_WEIGHTS
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises((OSError, ValueError), match=re.escape(ADAPTER_WEIGHTS)):
        load_student(tmp_path / "checkpoint-4")
