"""`kava profile --memory`: the estimate against the tensors of a real step, and what is printed."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from kava.cli import run as command
from kava.commands.profile import main
from kava.data.collate import Collator
from kava.models.load import load_model, load_model_config
from kava.models.tokenizers import byte_tokenizer
from kava.profile.live import LiveBytes, as_fake, bytes_of, fake_tensors
from kava.profile.memory import estimate_memory, teacher_bytes
from kava.profile.widths import largest_batch, widths_of
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.longest import longest
from kava.train.models import build_distiller, build_teacher_tokenizer, build_tokenizer
from kava.train.states import state_bytes
from kava.train.teacher_names import TeacherName

DATA = {"dataset_name": "kava/word-problems", "subset_size": 32, "keep_short": True}
WHOLE = {"max_length": 512, "overflow": "skip", "batch_size": 4, "device": "cpu"}


def saved(folder: Path, kind: str = "llama") -> str:
    """A model large enough that its activations are more than rounding, with random weights."""
    tokenizer = byte_tokenizer()
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
           "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}  # fmt: skip
    config: Any = GPT2Config(n_embd=128, n_layer=5, n_head=4, n_positions=1024, **ids)
    if kind == "llama":
        config = LlamaConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=5, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=1024, **ids,
        )  # fmt: skip
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def real_peak(config: TrainConfig) -> int:
    """The most bytes of living tensors in a real step, with weights and states."""
    tokenizer = build_tokenizer(config)
    theirs = build_teacher_tokenizer(config, tokenizer)
    samples = longest(load_data(config, tokenizer, theirs).train, config.batch_size)
    assert isinstance(tokenizer.pad_token_id, int)
    collate = Collator(tokenizer.pad_token_id, None if theirs is None else theirs.pad_token_id)
    distiller, batch = build_distiller(config).train(), collate(samples)
    parts = [distiller.student, *({distiller.teacher} - {None})]
    weights = bytes_of([[*part.parameters(), *part.buffers()] for part in parts if part])
    gc.collect()
    with LiveBytes() as live:
        for part in (
            p for model in parts if model for p in (*model.parameters(), *model.buffers())
        ):
            live._count(part.untyped_storage())
        live.mark()
        before = live.live
        distiller(batch).loss.backward()
        most = max(mark.most for mark in [live.mark()])
    return weights + most - before + state_bytes(config.optim, distiller.student)


CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora_r": 8},
    "lora, recomputed": {"lora_r": 8, "gradient_checkpointing": True},
    "another teacher": {"teacher_name": "teacher", "kv_method": "uniform"},
    "explicit": {"student": "explicit", "teacher_name": "teacher", "kv_method": "uniform"},
    "jacobi": {"decoding": "jacobi"},
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_near_the_tensors_of_a_real_step(
    case: str, kind: str, tmp_path: Path
) -> None:
    if "lora" in case:
        pytest.importorskip("peft")
    options = dict(CASES[case])
    if "teacher_name" in options:
        options["teacher_name"] = saved(tmp_path / "teacher", "gpt2")
    config = TrainConfig(
        model_name=saved(tmp_path / "student", kind), **DATA, **WHOLE, **options,
        aligner_fit="frozen", map_proj_init_uniform=True,
    )  # fmt: skip
    found = estimate_memory(config, largest_batch(config), torch.device("cpu"))
    assert found.peak == pytest.approx(real_peak(config), rel=0.15)


@pytest.mark.parametrize("mode", [None, "identity", "structured", "flat"])
def test_the_student_before_training_may_be_the_frozen_teacher(
    mode: str | None, tmp_path: Path
) -> None:
    name = saved(tmp_path)
    config = TrainConfig(
        model_name=name, teacher_name=name, alignment_mode=mode, aligner_fit="frozen", **DATA
    )
    found = estimate_memory(config, largest_batch(config), torch.device("cpu"))
    maps = sum(aligner.num_parameters for aligner in build_distiller(config).aligners)
    assert found.parts.get("maps", 0) == 4 * maps


def test_weights_gradients_and_states_are_counted_exactly(tmp_path: Path) -> None:
    name = saved(tmp_path)
    config = TrainConfig(model_name=name, **DATA, **WHOLE, gradient_accumulation_steps=2)
    found = estimate_memory(config, largest_batch(config), torch.device("cpu"), process=1000)
    student = build_distiller(config).student
    numbers = sum(part.numel() for part in student.parameters())
    assert found.parts["Python and libraries"] == 1000
    assert found.parts["optimiser: states"] == 8 * numbers
    assert found.parts["gradients"] == 4 * numbers
    assert found.num_trained == numbers
    buffers = sum(part.numel() * part.element_size() for part in student.buffers())
    assert found.parts["student: weights"] == 4 * numbers + buffers


@pytest.mark.parametrize("bits", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_bytes_of_a_teacher_are_those_that_it_takes(
    kind: str, bits: str, tmp_path: Path
) -> None:
    if bits != "none":
        pytest.importorskip("bitsandbytes")
    name = saved(tmp_path, kind)
    model = load_model(name, dtype="float32", quantization=bits)
    one = TeacherName("teacher", name, "float32", None, "none", bits)
    counted = teacher_bytes(one, load_model_config(name))
    assert counted == pytest.approx(model.get_memory_footprint(), rel=0.03)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit", "adafactor"])
def test_the_bytes_of_the_states_are_those_that_an_optimiser_holds(optim: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.Linear(256, 8, bias=False))
    kind: Any = torch.optim.AdamW
    options: dict[str, Any] = {"lr": 1e-3}
    if optim == "adamw_8bit":
        kind = pytest.importorskip("bitsandbytes").optim.AdamW8bit
    if optim == "adafactor":
        from transformers.optimization import Adafactor

        kind, options = Adafactor, {"lr": 1e-3, "relative_step": False, "scale_parameter": False}
    optimizer = kind(module.parameters(), **options)
    module(torch.ones(2, 128)).sum().backward()
    optimizer.step()
    states = {
        name: part
        for index, state in enumerate(optimizer.state.values())
        for name, part in ((f"{index} {key}", value) for key, value in state.items())
        if isinstance(part, torch.Tensor) and part.numel() > 1 and "qmap" not in name
    }
    held = sum(part.numel() * part.element_size() for part in states.values())
    assert state_bytes(optim, module) == pytest.approx(held, rel=0.01)


def test_living_tensors_are_counted_and_dropped_ones_are_not() -> None:
    with fake_tensors() as live:
        with torch.device("meta"):
            layer = torch.nn.Linear(64, 64, bias=False)
        as_fake(layer)
        live.mark()
        x = torch.ones(8, 64, requires_grad=True)
        y = layer(x).relu().exp()
        weight, size = 64 * 64 * 4, 8 * 64 * 4
        assert live.mark().live == weight + 3 * size  # x, and the results of relu and of exp
        del y
        gc.collect()
        assert live.mark().live == weight + size
        with torch.no_grad():
            kept = x.exp().exp().exp()
        mark = live.mark()
        assert mark.live == weight + 2 * size
        assert mark.most == weight + 3 * size
        del kept


def test_the_widths_are_those_of_the_longest_samples() -> None:
    config = TrainConfig(model_name="kava/tiny-llama", **DATA, **WHOLE)
    samples = load_data(config, build_tokenizer(config)).train
    found = longest(samples, 3)
    lengths = sorted((len(sample.input_ids) for sample in samples), reverse=True)
    assert [len(sample.input_ids) for sample in found] == lengths[:3]
    widths = widths_of(found)
    assert widths.batch == 3
    assert widths.text >= lengths[0]
    assert widths.teacher == (lengths[0],)


def test_the_command_prints_its_parts_and_loads_no_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kava.models.load.load_model", lambda *args, **options: sys.exit(9))
    flags = "--memory --model_name kava/tiny-llama --subset_size 16 --batch_size 4 --device cpu"
    assert command(main, flags.split()) == 0
    printed = capsys.readouterr().out
    for part in ("Python and libraries", "student: weights", "optimiser: states", "peak"):
        assert part in printed
    assert command(main, [*flags.split(), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert all(size > 0 for size in parts.values())


@pytest.mark.slow
def test_the_measured_peak_stands_beside_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--memory --measure --model_name kava/tiny-llama --subset_size 16 --batch_size 4"
    assert command(main, [*flags.split(), "--device", "cpu"]) == 0
    assert "measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--measure", "--measure runs the step that --memory estimates"),
        ("--memory --steps 3", "leave --mode and --steps out"),
        ("--memory --batch_size auto", "give a number"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(main, flags.split()) != 0
    assert part in capsys.readouterr().err
