"""Models in GGUF give what the model gives that they were written from, in every command."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from kava.commands.calibrate import main as calibrate
from kava.commands.evaluate import main as evaluate
from kava.commands.generate import main as generate
from kava.commands.train import main as train
from kava.models.capture import capture
from kava.models.gguf import gguf_name
from kava.models.load import is_local_model, load_model, load_model_config, load_tokenizer
from kava.models.tokenizers import byte_tokenizer
from kava.student.checkpoint import load_student
from kava.train.config import TrainConfig
from one_line import refusal

gguf = pytest.importorskip("gguf")

LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GAME = "kava/shell-game?num_moves=2&num_train=16&num_test=4"
DATA = ["--dataset_name", GAME, "--max_length", "200"]


def interleaved(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of a query or key projection in llama.cpp's order of the rotated pairs."""
    rows, width = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, width)
    return halves.swapaxes(1, 2).reshape(rows, width)


def write(path: Path, model: PreTrainedModel, kind: str = "llama", quantise: bool = False) -> None:
    """A Llama model and the byte tokenizer in GGUF."""
    config: Any = model.config
    state = {name.removeprefix("model."): part for name, part in model.state_dict().items()}
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokenizer = byte_tokenizer()
    tokens = [*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__), "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["a b"])  # the reader needs one
    writer.add_eos_token_id(256)
    writer.add_pad_token_id(257)
    tensors = {"token_embd": state["embed_tokens.weight"], "output_norm": state["norm.weight"]}
    tensors["output"] = state["lm_head.weight"]
    for layer in range(config.num_hidden_layers):
        for theirs, ours in LAYERS.items():
            tensors[f"blk.{layer}.{theirs}"] = state[f"layers.{layer}.{ours}.weight"]
    for name, part in tensors.items():
        if name.endswith("attn_q"):
            part = interleaved(part, config.num_attention_heads)
        elif name.endswith("attn_k"):
            part = interleaved(part, config.num_key_value_heads)
        values = part.float().numpy()
        if quantise and part.ndim == 2:
            kind_of = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(
                f"{name}.weight", gguf.quants.quantize(values, kind_of), raw_dtype=kind_of
            )
        else:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def original() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=257,
        tie_word_embeddings=False,
    )
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, original: PreTrainedModel) -> Path:
    there = tmp_path_factory.mktemp("gguf")
    write(there / "x.gguf", original)
    write(there / "x-q8.gguf", original, quantise=True)
    write(there / "odd.gguf", original, kind="oddity")
    return there


IDS = torch.tensor([[72, 101, 108, 108, 111]])


def test_the_logits_are_those_of_the_original(original: PreTrainedModel, folder: Path) -> None:
    model = load_model(folder / "x.gguf")
    assert type(model) is type(original)
    assert model.dtype == torch.float32
    assert load_model_config(folder / "x.gguf").num_key_value_heads == 2
    assert is_local_model(str(folder / "x.gguf"))
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, original(IDS).logits)
        coarse = load_model(folder / "x-q8.gguf")(IDS).logits
    error = (coarse - original(IDS).logits).abs().max().item()
    assert 0 < error < 0.05
    assert load_model(folder / "x.gguf", dtype="bfloat16").dtype == torch.bfloat16


def test_the_model_is_an_ordinary_one(
    original: PreTrainedModel, folder: Path, tmp_path: Path
) -> None:
    model = load_model(folder / "x-q8.gguf")
    assert "quantization_config" not in model.config.to_dict()
    model(IDS, labels=IDS).loss.backward()
    assert all(part.grad is not None for part in model.parameters())
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        again = load_model(tmp_path / "saved")(IDS).logits
        torch.testing.assert_close(again, model(IDS).logits)


def test_the_trace_is_that_of_the_original(original: PreTrainedModel, folder: Path) -> None:
    ours, theirs = (capture(model, IDS)[1] for model in (load_model(folder / "x.gguf"), original))
    torch.testing.assert_close(ours.keys, theirs.keys)
    torch.testing.assert_close(ours.values, theirs.values)


def test_the_tokenizer_is_the_folders_or_else_the_files(folder: Path, tmp_path: Path) -> None:
    text = "3 × 4 = 12\n"
    tokenizer = load_tokenizer(folder / "x.gguf")
    assert tokenizer(text)["input_ids"] == byte_tokenizer()(text)["input_ids"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257)
    (tmp_path / "x.gguf").write_bytes((folder / "x.gguf").read_bytes())
    own = byte_tokenizer()
    own.add_tokens(["three"])
    own.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path / "x.gguf")("three")["input_ids"] == [258]


@pytest.mark.parametrize("adapters", [[], ["--lora_r", "2"]])
def test_a_student_is_trained_from_one_and_taught_by_one(
    folder: Path, tmp_path: Path, adapters: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = [
        *("--model_name", str(folder), "--gguf_file", "x.gguf"),
        *("--teacher_name", str(folder), "--teacher_gguf_file", "x-q8.gguf"),
        *(*DATA, "--target_len", "2", "--max_steps", "1", "--batch_size", "4"),
        *("--output_dir", str(run), "--device", "cpu", "--no_progress", *adapters),
    ]
    assert train(flags) == 0
    student = load_student(run)
    recorded = student.settings["config"]
    assert recorded["model_name"] == str(folder / "x.gguf")
    assert recorded["teacher_name"] == str(folder / "x-q8.gguf")
    capsys.readouterr()
    assert generate([str(run), "--prompt", "a?", "--max_new_tokens", "2", "--device", "cpu"]) == 0


def test_other_commands_take_it_by_its_name_or_by_the_flag(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--max_new_tokens", "2", "--device", "cpu"]
    assert generate([f"{folder}/x.gguf", "--prompt", "a?", *few]) == 0
    said = capsys.readouterr().out
    assert generate([str(folder), "--gguf_file", "x.gguf", "--prompt", "a?", *few]) == 0
    assert capsys.readouterr().out == said
    assert evaluate([f"{folder}/x.gguf", *DATA[:2], *few]) == 0
    fit = ["--output_dir", str(tmp_path / "fit"), "--calibration_samples", "8", "--map_rank", "1"]
    models = ["--model_name", "kava/tiny-llama", "--teacher_name", str(folder)]
    assert calibrate([*models, "--teacher_gguf_file", "x.gguf", *DATA, *fit]) == 0
    report = json.loads((tmp_path / "fit" / "calibration.json").read_text())
    assert report["teacher_name"] == f"{folder}/x.gguf"


def test_what_cannot_be_read_is_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def line(name: str | Path, *more: str) -> str:
        return refusal(train, ["--model_name", str(name), *more, *DATA, "--device", "cpu"], capsys)

    assert "architecture oddity is not supported" in line(folder / "odd.gguf")
    assert "holds odd.gguf, x-q8.gguf, x.gguf" in line(folder / "y.gguf")
    whole = (folder / "x.gguf").read_bytes()
    for size in (100, len(whole) // 2):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert "if its download was cut off, download it" in line(tmp_path / "cut.gguf")
    assert "alone: pass the file" in line(folder)
    assert "must end with .gguf" in line(folder, "--gguf_file", "x.bin")
    assert "each name a file" in line(folder / "x.gguf", "--gguf_file", "x.gguf")
    assert "and none is named" in line(folder / "x.gguf", "--teacher_gguf_file", "x.gguf")
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else there(name)
    )
    assert "needs the package gguf: pip install" in line(folder / "x.gguf")


def test_a_flag_and_a_name_say_the_same() -> None:
    flagged = TrainConfig(model_name="models/x", gguf_file="x.gguf", teacher_name="gpt2")
    named = TrainConfig(model_name="models/x/x.gguf", teacher_name="gpt2")
    assert flagged == named
    assert gguf_name("org/x/", "y.gguf", "--gguf_file") == "org/x/y.gguf"
