"""Exported students give the same answers in other programs, and are whole or absent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROOT
from kava.cli import run
from kava.commands.evaluate import main as evaluate
from kava.commands.export import main as export
from kava.commands.train import main as train
from kava.data.records import Template
from kava.data.sources import load_records
from kava.models.load import load_model, load_tokenizer
from kava.student.checkpoint import load_student, save_student
from kava.student.exported import load_exported, write_exported
from kava.student.latent import LatentStudent
from share.conftest import GAME, TRAIN

PAGE = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
(RUNTIME,) = re.findall(r"^```python\n(import json\n.*?)^```$", PAGE, re.M | re.S)


def answers(checkpoint: Path, output: Path) -> list[str]:
    argv = [str(checkpoint), "--dataset_name", GAME, "--device", "cpu", "--output", str(output)]
    assert evaluate(argv) == 0
    return [json.loads(line)["text"] for line in output.read_text().splitlines()]


def generated(model: Any, tokenizer: Any) -> list[str]:
    """What transformers' own calls answer."""
    records = load_records(GAME, split="test")
    chats = [[{"role": "user", "content": record.question}] for record in records]
    batch = tokenizer.apply_chat_template(
        chats, return_tensors="pt", return_dict=True, padding=True
    )
    ids = model.generate(**batch, max_new_tokens=12, do_sample=False)
    new = ids[:, batch["input_ids"].shape[1] :]
    texts: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
    return texts


@pytest.mark.parametrize("kind", ["latent", "explicit"])
def test_an_exported_student_answers_as_its_checkpoint_does(
    kind: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert run(export, [str(runs / kind), "--output_dir", str(folder)]) == 0
    assert f"written to {folder}: README.md, " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    expected = answers(runs / kind, tmp_path / "a.jsonl")
    assert answers(folder, tmp_path / "b.jsonl") == expected
    stock = AutoModelForCausalLM.from_pretrained(folder)
    assert type(stock).__name__ == "LlamaForCausalLM"
    if kind == "explicit":
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert generated(stock, tokenizer) == expected
        kept = json.loads((folder / "kava.json").read_text())
        assert kept["config"] == {"max_new_tokens": 12}  # paths and other flags stay here


def check_adapters(checkpoint: Path, expected: list[str]) -> None:
    """transformers' own call finds the base of a checkpoint's adapters."""
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    )
    assert not model.training
    assert model.base.config._attn_implementation == "eager"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert generated(model, tokenizer) == expected
    assert model.generation_config.max_new_tokens == 12
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    half = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"quantization_config=.* cannot be followed for"):
        AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config={"bits": 4})
    with pytest.raises(ValueError, match="'balanced' is unknown; choose auto, cpu"):
        AutoModelForCausalLM.from_pretrained(checkpoint, device_map="balanced")


@pytest.mark.parametrize("kind", ["latent", "explicit"])
def test_adapters_are_added_to_the_weights(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    explicit = ["--student", "explicit", "--kv_method", "uniform"] if kind == "explicit" else []
    argv = [*TRAIN.split(), "--target_len", "2", "--lora_r", "4", "--lr", "0.1", *explicit]
    assert train([*argv, "--output_dir", str(tmp_path / "run")]) == 0
    folder = tmp_path / "exported"
    assert export([str(tmp_path / "run"), "--output_dir", str(folder)]) == 0
    expected = answers(tmp_path / "run", tmp_path / "a.jsonl")
    assert answers(folder, tmp_path / "b.jsonl") == expected
    assert type(AutoModelForCausalLM.from_pretrained(folder)).__name__ == "LlamaForCausalLM"
    assert not [path for path in folder.iterdir() if "adapter" in path.name]
    assert "| LoRA | rank 4, α 8, merged here |" in (folder / "README.md").read_text()
    if kind == "latent":
        check_adapters(tmp_path / "run/checkpoint-2", expected)
        loaded = load_student(tmp_path / "run").model
        assert isinstance(loaded, LatentStudent)
        assert loaded.generation_config.max_new_tokens == 12


STUDENTS: dict[str, dict[str, Any]] = {
    "none": {"num_latents": 0},
    "sequential": {"num_latents": 3},
    "jacobi": {"num_latents": 4, "decoding": "jacobi", "num_iterations": 2},
    "one iteration": {"num_latents": 2, "decoding": "jacobi", "num_iterations": 1},
    "pause": {"num_latents": 3, "decoding": "jacobi", "num_iterations": 0},
    "shared positions": {"num_latents": 3, "thought_positions": "shared"},
    "no latents, shared": {"num_latents": 0, "thought_positions": "shared"},
}


def student_of(family: str, name: str) -> LatentStudent:
    torch.manual_seed(3)
    model = load_model(f"kava/tiny-{family}")
    for parameter in model.parameters():  # spread, so that a mistake shows
        torch.nn.init.normal_(parameter, std=0.2)
    student = LatentStudent.wrap(model, **STUDENTS[name]).eval()
    if hasattr(student, "projection"):
        torch.nn.init.normal_(student.projection[4].bias)
    return student


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("name", STUDENTS)
def test_the_program_of_the_page_answers_as_the_student_does(
    family: str, name: str, tmp_path: Path
) -> None:
    student, tokenizer = student_of(family, name), load_tokenizer(f"kava/tiny-{family}")
    template = Template(question="Question: {question}\nAnswer:\n")
    write_exported(tmp_path, student, tokenizer, template, {"config": {"max_new_tokens": 6}})
    program: dict[str, Any] = {}
    exec(RUNTIME, program)
    chat = [{"role": "user", "content": "How many are 2 + 2?"}]
    loaded = load_student(tmp_path)
    batch = loaded.tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    ids = loaded.model.generate(**batch)[0, batch["input_ids"].shape[1] :]
    own = student.answer(batch["input_ids"], max_new_tokens=6, eos_token_id=256).tokens[0]
    assert torch.equal(ids, own)
    assert len(set(ids.tolist())) > 1
    said = program["answer"](str(tmp_path), chat[0]["content"])
    assert said == loaded.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", STUDENTS)
def test_what_is_written_is_loaded(name: str, tmp_path: Path) -> None:
    student = student_of("llama", name)
    tokenizer = load_tokenizer("kava/tiny-llama")
    settings = {"step": 7, "data_hash": "abc", "config": {"max_new_tokens": 5}}
    write_exported(tmp_path, student, tokenizer, Template(), settings)
    assert not hasattr(student.base.config, "kava_latent_base")
    loaded, found = load_exported(tmp_path)
    ours, theirs = student.state_dict(), loaded.state_dict()
    assert {*ours} == {*theirs}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for key in ("num_latents", "decoding", "thought_positions"):
        assert getattr(loaded.config, key) == getattr(student.config, key)
    assert found == {**settings, "student": "latent", "template": asdict(Template())}
    assert loaded.generation_config.max_new_tokens == 5


def no_side_tensors(folder: Path) -> None:
    (folder / "kava_latent.safetensors").unlink()


def no_side_settings(folder: Path) -> None:
    (folder / "kava_latent.json").unlink()


def cut_tensors(folder: Path) -> None:
    path = folder / "kava_latent.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def changed(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "kava_latent.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "kava_latent.json"
        found = json.loads(path.read_text())
        del found[name]
        path.write_text(json.dumps(found))

    return change


def vectors(now: torch.Tensor | None) -> Callable[[Path], None]:
    """Other thought embeddings, or none."""

    def spoil(folder: Path) -> None:
        found = load_file(folder / "kava_latent.safetensors")
        del found["thought_embeddings"]
        added = {} if now is None else {"thought_embeddings": now}
        save_file({**found, **added}, folder / "kava_latent.safetensors")

    return spoil


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tensors": (no_side_tensors, "kava_latent.safetensors is missing: the folder holds the"),
    "no settings": (no_side_settings, "kava_latent.json is missing: the folder holds the base"),
    "cut tensors": (cut_tensors, "kava_latent.safetensors is damaged or truncated"),
    "format": (changed(format=2), "has format 2, this version of kava reads 1"),
    "latents": (changed(num_latents=-1), "num_latents=-1 must be a whole number"),
    "decoding": (changed(decoding="x"), "decoding='x' is unknown"),
    "other decoding": (
        changed(decoding="jacobi", num_iterations=1),
        "does not fit kava_latent.json beside it: 'placeholders' is in one of them only",
    ),
    "no latents": (without("num_latents"), "it has no 'num_latents'"),
    "no template": (without("template"), "its template is missing"),
    "no vectors": (vectors(None), "'thought_embeddings' is in one of them only"),
    "other width": (
        vectors(torch.zeros(2, 3)),
        r"'thought_embeddings' is \[2, 3\], the base needs \[2, 64\]",
    ),
    "not finite": (vectors(torch.full((2, 64), float("nan"))), "are not finite"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_broken_is_named(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGED[case]
    student = student_of("llama", "sequential")
    write_exported(tmp_path, student, load_tokenizer("kava/tiny-llama"), Template(), {})
    damage(tmp_path)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        load_student(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def exported(runs: Path, tmp_path: Path) -> Path:
    assert export([str(runs / "latent"), "--output_dir", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_a_folder_that_is_there_is_replaced_on_demand_alone(
    runs: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(runs / "explicit"), "--output_dir", str(exported)]
    before = sorted(path.name for path in exported.iterdir())
    assert run(export, argv) == 1
    assert "holds an exported student already: pass --overwrite" in capsys.readouterr().err
    assert sorted(path.name for path in exported.iterdir()) == before
    assert run(export, [*argv, "--overwrite"]) == 0
    assert not (exported / "kava_latent.json").exists()
    assert run(export, [str(runs / "latent"), "--output_dir", str(exported), "--overwrite"]) == 0
    assert sorted(path.name for path in exported.iterdir()) == before


@pytest.mark.parametrize("target", ["run", "notes"])
def test_other_folders_are_never_replaced(
    target: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x"
    if target == "run":
        shutil.copytree(runs / "latent" / "checkpoint-2", folder)
    else:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    before = sorted(folder.iterdir())
    argv = [str(runs / "latent"), "--output_dir", str(folder), "--overwrite"]
    assert run(export, argv) == 1
    assert "holds other files, which no export takes away" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["kava/tiny-gpt2"], "kava/tiny-gpt2 is no checkpoint of kava train"),
        (["nowhere/x/y"], "'nowhere/x/y' does not exist"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(export, [*argv, "--output_dir", str(tmp_path / "x" / "out")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_the_old_one(
    runs: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kava.student.exported.save_file", fail)
    argv = [str(runs / "latent"), "--output_dir", str(exported), "--overwrite"]
    assert run(export, argv) == 130
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert [path.name for path in exported.parent.iterdir()] == ["out"]


def test_a_student_without_logs_is_exported_too(tmp_path: Path) -> None:
    student = student_of("llama", "sequential")
    tokenizer = load_tokenizer("kava/tiny-llama")
    save_student(tmp_path / "x", student, tokenizer, {"template": asdict(Template())})
    assert run(export, [str(tmp_path / "x"), "--output_dir", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| settings | not recorded |" in card
    assert "Not measured: the logs of the run hold no evaluation." in card
    assert "The collapse guard's verdict: not recorded." in card
