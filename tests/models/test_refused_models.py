"""Models that cannot be used: one line that says what to do, in every command, before data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BloomConfig,
    FalconConfig,
    FalconH1Config,
    JambaConfig,
    Lfm2Config,
    MambaConfig,
    MptConfig,
    OpenAIGPTConfig,
    PreTrainedConfig,
    Qwen3VLConfig,
    T5Config,
    ViTConfig,
    WhisperConfig,
    XLNetConfig,
)

from kava.cli import run
from kava.commands.calibrate import main as calibrate
from kava.commands.compare_evictions import main as compare_evictions
from kava.commands.costs import main as costs
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import main as generate_main
from kava.commands.layer_map import main as layer_map
from kava.commands.profile import main as profile
from kava.commands.train import main as train
from kava.models.load import load_model, load_tokenizer
from kava.student.latent import LatentStudent

NOWHERE = "no.jsonl"  # data that would be complained of if they were read first
GOOD = "kava/tiny-llama"
DATA = ["--dataset_name", NOWHERE]

COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "train": (train, ["--model_name", "{}", *DATA]),
    "train's teacher": (train, ["--model_name", GOOD, "--teacher_name", "{}", *DATA]),
    "evaluate": (evaluate_main, ["{}", *DATA]),
    "generate": (generate_main, ["{}", "--input", NOWHERE]),
    "costs": (costs, ["{}", *DATA]),
    "calibrate": (
        calibrate,
        ["--model_name", "{}", "--teacher_name", GOOD, "--output_dir", "no", *DATA],
    ),
    "calibrate's teacher": (
        calibrate,
        ["--model_name", GOOD, "--teacher_name", "{}", "--output_dir", "no", *DATA],
    ),
    "layer-map": (layer_map, ["--student_model", "{}", "--teacher_model", GOOD, *DATA]),
    "profile": (profile, ["--model_name", "{}", *DATA]),
    "compare_evictions": (compare_evictions, ["--teacher_name", "{}", *DATA]),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model and tokenizer."""
    folder = tmp_path_factory.mktemp("good")
    load_model("kava/tiny-llama").save_pretrained(folder)
    load_tokenizer("kava/tiny-llama").save_pretrained(folder)
    return folder


def without(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def written(name: str, text: str | bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = text.encode() if isinstance(text, str) else text
        (folder / name).write_bytes(data)

    return damage


def configured(name: str = "config.json", **changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        settings.update(changes)
        settings = {key: value for key, value in settings.items() if value != "left out"}
        (folder / name).write_text(json.dumps(settings))

    return damage


def of_kind(config: PreTrainedConfig) -> Callable[[Path], None]:
    return lambda folder: config.save_pretrained(folder)


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def half_fetched(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.rename(folder / "model.safetensors.incomplete")


def pickled(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def sharded(folder: Path) -> None:
    """Two shards and their list, one of them missing."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": []}
    save_file(
        {name: weights[name] for name in names[::2]},
        folder / "model-00001-of-00002.safetensors",
        metadata={"format": "pt"},
    )
    listed = {name: file for file, some in parts.items() for name in some}
    listed |= dict.fromkeys(names[1::2], "model-00002-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")


def snapshot(folder: Path) -> None:
    """A folder above the model's, as the hub's cache has it."""
    inside = folder / "snapshots"
    inside.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file():
            path.rename(inside / path.name)


WRONG_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (without("config.json"), "without config.json; download the whole model"),
    "config cut": (written("config.json", "{"), "its config.json is damaged"),
    "no model_type": (configured(model_type="left out"), "names no model_type"),
    "unknown type": (configured(model_type="no-such-type"), "no-such-type"),
    "bad value": (configured(num_attention_heads=7), "cannot load a model from the folder"),
    "no weights": (without("model.safetensors"), "it holds no weights (model.safetensors)"),
    "weights cut": (truncated, "model.safetensors is damaged or truncated"),
    "half a download": (half_fetched, "model.safetensors.incomplete is half a download"),
    "missing shard": (sharded, "model-00002-of-00002.safetensors is missing"),
    "bad index": (
        both(without("model.safetensors"), written("model.safetensors.index.json", "[]")),
        "model.safetensors.index.json is damaged",
    ),
    "git lfs": (
        written("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a pointer of Git LFS, not the weights (git lfs pull gets them)",
    ),
    "pickle": (pickled, "KaVa reads safetensors alone"),
    "gguf": (
        both(without("model.safetensors"), written("model-q4.gguf", "GGUF")),
        "it holds model-q4.gguf alone: pass the file",
    ),
    "gguf alone": (
        both(without("model.safetensors", "config.json"), written("x.gguf", "GGUF")),
        "it holds x.gguf alone: pass the file",
    ),
    "other framework": (
        both(without("model.safetensors"), written("tf_model.h5", "")),
        "TensorFlow or Flax",
    ),
    "adapter": (adapter, "holds an adapter of 'gpt2', and no model: merge it"),
    "one folder too high": (snapshot, "but snapshots in it does; pass"),
    "bert": (of_kind(BertConfig()), "is no causal language model (bert)"),
    "t5": (of_kind(T5Config()), "is an encoder-decoder (t5)"),
    "whisper": (of_kind(WhisperConfig()), "is an encoder-decoder (whisper)"),
    "vit": (of_kind(ViTConfig()), "is no causal language model (vit)"),
    "composite": (of_kind(Qwen3VLConfig()), "such as a qwen3 in place of qwen3_vl_text"),
    "gpt-1": (of_kind(OpenAIGPTConfig()), "OpenAIGPTLMHeadModel keeps no cache of keys and values"),
    "xlnet": (of_kind(XLNetConfig()), "XLNetLMHeadModel keeps no cache of keys and values"),
    "mamba": (of_kind(MambaConfig()), "MambaForCausalLM has recurrent layers"),
    "jamba": (of_kind(JambaConfig()), "JambaForCausalLM has recurrent layers"),
    "falcon-h1": (of_kind(FalconH1Config()), "FalconH1ForCausalLM has recurrent layers"),
    "lfm2": (
        of_kind(Lfm2Config(num_hidden_layers=2, layer_types=["full_attention", "conv"])),
        "of the type conv, which keeps no keys",
    ),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        "cannot load a tokenizer from the folder",
    ),
    "tokenizer cut": (written("tokenizer.json", "{"), "model/tokenizer.json is damaged (EOF"),
    "tokenizer of another kind": (
        written("tokenizer.json", '{"version": "1.0"}'),
        "model/tokenizer.json is damaged (",
    ),
    "no end token": (
        configured("tokenizer_config.json", eos_token=None),
        "has no end-of-sequence token",
    ),
    "neither pad nor end": (
        configured("tokenizer_config.json", eos_token=None, pad_token=None),
        "neither a padding nor an end-of-sequence token",
    ),
    "added pad": (
        configured("tokenizer_config.json", pad_token="<added>"),
        "has the pad token '<added>' with id 258, but the model has 258 embeddings",
    ),
    "slow tokenizer": (
        both(
            without("tokenizer.json"),
            written("tokenizer_config.json", '{"tokenizer_class": "ByT5Tokenizer"}'),
        ),
        "gives no character offsets",
    ),
}


def spoiled(good: Path, where: Path, damage: Callable[[Path], None]) -> Path:
    folder = where / "model"
    shutil.copytree(good, folder)
    damage(folder)
    return folder


def complaint_of(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    main, flags = COMMANDS[command]
    assert run(main, [flag.format(name) for flag in flags]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


OF_EVERY_KIND = ("missing shard", "adapter", "mamba", "added pad", "tokenizer cut")
CASES = [("train", wrong) for wrong in WRONG_FOLDERS] + [
    (command, wrong) for command in COMMANDS if command != "train" for wrong in OF_EVERY_KIND
]


@pytest.mark.parametrize(("command", "wrong"), CASES)
def test_what_is_wrong_with_a_folder_is_said_before_data_are_read(
    command: str,
    wrong: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage, complaint = WRONG_FOLDERS[wrong]
    folder = spoiled(good, tmp_path, damage)
    monkeypatch.chdir(tmp_path)
    line = complaint_of(command, str(folder), capsys)
    assert line.startswith("kava: error: ")
    assert complaint in line
    assert str(folder) in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nobody/nothing-of-this-name", "the Hugging Face hub gave nothing"),
        ("kava/tiny-gpt3", "unknown built-in model 'kava/tiny-gpt3'"),
        ("./nowhere", "the folder './nowhere' does not exist"),
        ("x.gguf", "'x.gguf' is no GGUF file; download it again"),
        ("./y.gguf", "the file './y.gguf' does not exist; pass FOLDER/FILE.gguf"),
    ],
)
def test_a_name_that_leads_nowhere_is_said_before_data_are_read(
    command: str,
    name: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"FUGG")
    monkeypatch.chdir(tmp_path)
    assert complaint in complaint_of(command, name, capsys)


GAME = "kava/shell-game?num_train=8"
FEW = {
    "calibrate": ["--calibration_samples", "8"],
    "calibrate's teacher": ["--calibration_samples", "8"],
    "layer-map": ["--num_samples", "8"],
    "compare_evictions": ["--num_samples", "8"],
}


def cut_down(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def not_finite(value: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = load_file(path)
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def latent(folder: Path) -> None:
    shutil.rmtree(folder)
    LatentStudent.wrap(load_model("kava/tiny-llama"), num_latents=2).save_pretrained(folder)
    load_tokenizer("kava/tiny-llama").save_pretrained(folder)


WRONG_WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (not_finite(float("nan")), "1 of 11,008 numbers of 'model.layers.1.mlp.up_proj.weight'"),
    "infinite": (not_finite(float("-inf")), "are NaN or infinite"),
    "missing": (cut_down, "lacks 1 weights of LlamaForCausalLM"),
    "other shape": (configured(intermediate_size=100), "do not fit its config.json"),
}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [("train", wrong) for wrong in WRONG_WEIGHTS]
    + [(command, "NaN") for command in COMMANDS if command != "train"],
)
def test_what_is_wrong_with_the_weights_is_said_before_a_step(
    command: str,
    wrong: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage, complaint = WRONG_WEIGHTS[wrong]
    folder = spoiled(good, tmp_path, damage)
    monkeypatch.chdir(tmp_path)
    main, flags = COMMANDS[command]
    flags = [flag.format(folder).replace(NOWHERE, GAME) for flag in flags]
    assert run(main, [*flags, *FEW.get(command, [])]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kava: error: ")
    assert complaint in line
    assert str(folder) in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("command", ["train", "train's teacher", "calibrate", "layer-map"])
def test_a_latent_student_is_no_model_to_start_from(
    command: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint_of(command, str(spoiled(good, tmp_path, latent)), capsys)
    assert "holds a latent student, which kava evaluate, generate and costs read" in line


def test_quantised_weights_cannot_be_trained(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantised = configured(quantization_config={"quant_method": "gptq", "bits": 4})
    line = complaint_of("train", str(spoiled(good, tmp_path, quantised)), capsys)
    assert "has quantised weights, which no step can change" in line


@pytest.mark.parametrize(
    ("flags", "mend"),
    [
        ([], "--kv_method rkv looks at attention; choose what does not"),
        (
            ["--kv_method", "uniform", "--kv_loss", "structural"],
            "--kv_loss structural looks at attention",
        ),
        (
            ["--kv_method", "uniform", "--attention_weighted_kv"],
            "--attention_weighted_kv looks at attention",
        ),
    ],
)
@pytest.mark.parametrize("config", [BloomConfig, FalconConfig, MptConfig])
def test_queries_that_cannot_be_recorded_are_said_before_data_are_read(
    config: type[PreTrainedConfig],
    flags: list[str],
    mend: str,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = spoiled(good, tmp_path, of_kind(config(vocab_size=258)))
    assert run(train, ["--model_name", str(folder), *DATA, *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the queries of {str(folder)!r} ({config.model_type}) cannot be recorded" in line
    assert mend in line
