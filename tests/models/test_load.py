"""Names become models and tokenizers, or one clear line; never weights that were made up."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPTJConfig,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
    T5Config,
    T5ForConditionalGeneration,
    VoxtralConfig,
)

from kava.commands.train import main as train
from kava.models import load as models
from kava.models.capture import capture
from kava.models.limits import table_of_positions
from kava.models.load import (
    BUILTIN_NAMES,
    RANDOM_MODELS,
    load_model,
    load_model_config,
    load_tokenizer,
)
from kava.models.tokenizers import byte_tokenizer
from kava.models.traceable import text_part
from kava.student.checkpoint import load_student

TINY = [name for name in RANDOM_MODELS if name.startswith("kava/tiny-")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model and tokenizer."""
    load_model("kava/tiny-llama").save_pretrained(tmp_path)
    load_tokenizer("kava/tiny-llama").save_pretrained(tmp_path)
    return tmp_path


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_a_built_in_model_reads_its_tokenizers_text(name):
    model, tokenizer = load_model(name), load_tokenizer(name)
    assert not model.training
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id is not None
    assert model.config.pad_token_id == tokenizer.pad_token_id is not None
    assert model.config.max_position_embeddings >= 256
    token = torch.full((1, 3), tokenizer.eos_token_id)
    outputs, trace = capture(model, token)
    assert outputs.logits.isfinite().all()
    assert trace.num_layers == model.config.num_hidden_layers


def test_the_families_have_their_own_geometry():
    models = {name: load_model(name) for name in TINY}
    assert models["kava/tiny-llama"].config.num_key_value_heads == 2
    assert models["kava/tiny-mistral"].config.sliding_window == 128
    assert models["kava/tiny-gemma"].config.head_dim == 32
    assert models["kava/tiny-gpt-neox"].config.rope_parameters["partial_rotary_factor"] == 0.5
    assert models["kava/tiny-qwen2"].model.layers[0].self_attn.k_proj.bias is not None


def test_random_weights_are_announced_seeded_and_leave_the_generator_alone(caplog):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with caplog.at_level(logging.WARNING):
        first = load_model("kava/tiny-gpt2")
    assert torch.equal(torch.rand(3), expected)
    assert "kava/tiny-gpt2 has random weights" in caplog.text
    second = load_model("kava/tiny-gpt2")
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, second.state_dict()[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_a_dtype_is_honoured(folder, dtype):
    assert load_model("kava/tiny-llama", dtype=dtype).dtype == torch.bfloat16
    assert load_model(folder, dtype=dtype).dtype == torch.bfloat16
    assert load_model(folder).dtype == torch.float32
    assert load_model(folder, device="meta").device.type == "meta"


@pytest.mark.parametrize("dtype", ["bf16", "int64", "Tensor"])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match=f"dtype='{dtype}' is unknown"):
        load_model("kava/tiny-llama", dtype=dtype)


def test_a_saved_folder_loads_as_it_was(folder):
    model, expected = load_model(folder), load_model("kava/tiny-llama")
    assert not model.training
    for name, parameter in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], parameter)
    assert load_tokenizer(folder)("a × b")["input_ids"] == byte_tokenizer()("a × b")["input_ids"]


def test_the_byte_tokenizer_covers_every_text_with_character_offsets():
    tokenizer = byte_tokenizer()
    text = " 3 × 4\n= «12», 日本 🙂\t"
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"]) == text
    assert len(encoded["input_ids"]) == len(text.encode())
    expected = [(i, i + 1) for i, character in enumerate(text) for _ in character.encode()]
    assert encoded["offset_mapping"] == expected
    every_byte = bytes(range(256)).decode("latin-1")
    assert set(tokenizer(every_byte)["input_ids"]) <= set(range(256))
    assert len(tokenizer) == 258
    assert tokenizer("x<|endoftext|>")["input_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    batch = tokenizer(["ab", "c"], padding=True)
    assert batch["attention_mask"] == [[1, 1], [1, 0]]


def test_a_tokenizer_without_padding_pads_with_its_end_token(folder, caplog):
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.INFO):
        loaded = load_tokenizer(folder)
    assert loaded.pad_token == loaded.eos_token == "<|endoftext|>"
    assert "has no padding token: <|endoftext|> pads" in caplog.text


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    load_model("kava/tiny-gpt2").save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in one_line(caught.value)


def test_a_tokenizer_with_neither_padding_nor_end_is_refused(folder):
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="neither a padding nor an end-of-sequence"):
        load_tokenizer(folder)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_an_unknown_built_in_name_lists_the_choices(load):
    with pytest.raises(ValueError, match="unknown built-in model 'kava/tiny-gpt3'") as caught:
        load("kava/tiny-gpt3")
    assert all(name in one_line(caught.value) for name in BUILTIN_NAMES)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c", ""])
def test_a_folder_that_does_not_exist_is_named(load, name):
    with pytest.raises(OSError, match="does not exist") as caught:
        load(name)
    assert repr(name) in one_line(caught.value)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_missing_folder_is_not_looked_up_on_the_hub_where_its_parent_is(
    load, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    with pytest.raises(OSError, match="the folder 'outputs/gone' does not exist"):
        load("outputs/gone")


def test_a_file_in_place_of_a_folder_is_named(folder):
    with pytest.raises(OSError, match="is a file; pass the folder"):
        load_model(folder / "model.safetensors")


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_hub_out_of_reach_points_to_what_works_without(load):
    with pytest.raises(OSError, match="hub gave nothing") as caught:
        load("nobody/nothing-of-this-name")
    assert "pass a local folder, or a built-in name" in one_line(caught.value)


@pytest.mark.parametrize("kept_bytes", [0, 7, 5_000, -1])
def test_truncated_weights_name_their_file(folder, kept_bytes):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match="damaged or truncated") as caught:
        load_model(folder)
    assert str(path) in one_line(caught.value)


def test_missing_weights_are_an_error_and_not_random(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights") as caught:
        load_model(folder)
    assert "model.layers.1.self_attn.k_proj.weight" in one_line(caught.value)


def test_weights_of_another_size_are_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    with pytest.raises(ValueError, match=r"do not fit .*config\.json") as caught:
        load_model(folder)
    one_line(caught.value)


def test_pickled_weights_are_not_read(folder):
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(OSError, match=r"safetensors") as caught:
        load_model(folder)
    one_line(caught.value)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "no-such-type"}'])
def test_a_folder_without_a_readable_config_is_named(folder, content):
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(OSError, match="cannot load a model from the folder") as caught:
        load_model(folder)
    assert str(folder) in one_line(caught.value)


def test_code_that_comes_with_a_checkpoint_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('code of the checkpoint ran')")
    with pytest.raises(OSError, match="trust_remote_code") as caught:
        load_model(folder)
    one_line(caught.value)


def test_models_of_another_kind_are_refused(tmp_path):
    config = T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match=r"is an encoder-decoder \(t5\)"):
        load_model(tmp_path / "t5")
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"is no causal language model \(bert\)"):
        load_model(tmp_path / "bert")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["gemma3", "llava", "llama4"])
def test_a_composite_model_gives_its_part_of_text(tmp_path, name, tied):
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**size, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}
    text = {**size, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}
    text |= {"vocab_size": 97, "pad_token_id": 0}
    config_class, model_class, text_class = {
        "gemma3": (Gemma3Config, Gemma3ForConditionalGeneration, "Gemma3ForCausalLM"),
        "llava": (LlavaConfig, LlavaForConditionalGeneration, "LlamaForCausalLM"),
        "llama4": (Llama4Config, Llama4ForConditionalGeneration, "Llama4ForCausalLM"),
    }[name]
    if name == "llama4":
        text |= {"intermediate_size_mlp": 16, "num_local_experts": 2}
        vision |= {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
    own = {"gemma3": "gemma3_text", "llava": "llama", "llama4": "llama4_text"}[name]
    config = config_class(
        text_config={**text, "model_type": own},
        vision_config=vision,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    whole = model_class(config).eval()
    whole.save_pretrained(tmp_path)
    assert load_model_config(tmp_path).num_hidden_layers == 2
    model = load_model(tmp_path)
    assert type(model).__name__ == text_class
    ids = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(model(ids).logits, whole(input_ids=ids).logits)
    model.save_pretrained(tmp_path / "text")  # as a trained student is
    assert torch.equal(load_model(tmp_path / "text")(ids).logits, model(ids).logits)


def test_the_text_of_a_composite_model_is_trained(tmp_path, capsys):
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**size, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}
    text |= {"vocab_size": 258, "pad_token_id": 257, "eos_token_id": 256, "bos_token_id": None}
    vision = {**size, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}
    config = Gemma3Config(text_config=text, vision_config=vision)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "whole")
    byte_tokenizer().save_pretrained(tmp_path / "whole")
    flags = (
        "--target_len 2 --max_steps 1 --batch_size 4 --max_length 200 --device cpu --no_progress"
    )
    data = ["--dataset_name", "kava/shell-game?num_moves=2&num_train=8"]
    out = ["--output_dir", str(tmp_path / "run")]
    assert train(["--model_name", str(tmp_path / "whole"), *flags.split(), *data, *out]) == 0
    assert load_student(tmp_path / "run").model.base.config.model_type == "gemma3_text"


def test_a_composite_configuration_may_say_nothing_of_the_head():
    assert text_part(VoxtralConfig(), "org/voxtral").model_type == "llama"


def test_a_configuration_comes_without_weights(folder):
    expected = load_model(folder).config.to_dict()
    assert load_model_config("kava/tiny-llama").hidden_size == 64
    assert load_model_config(folder).to_dict()["hidden_size"] == expected["hidden_size"]
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_model_config(folder)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("kava/tiny-gpt2", 2048),
        ("kava/shell-gpt2", 256),
        ("kava/tiny-llama", None),
        ("kava/tiny-gpt-neox", None),
    ],
)
def test_a_table_of_positions_ends_and_a_rotation_does_not(name, limit):
    assert table_of_positions(load_model_config(name)) == limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (OPTConfig(max_position_embeddings=64), 64),
        (GPTJConfig(n_positions=64), 64),
        (BloomConfig(), None),
        (FalconConfig(alibi=True), None),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_positions_of_other_families(config, limit):
    assert table_of_positions(config) == limit


def test_the_trained_teacher_is_found_in_the_package_or_said_to_be_missing(
    folder, monkeypatch, tmp_path
):
    monkeypatch.setitem(models.TRAINED_MODELS, "kava/shell-teacher", tmp_path / "nothing")
    with pytest.raises(OSError, match="not in this installation"):
        load_model("kava/shell-teacher")
    with pytest.raises(OSError, match="not in this installation"):
        load_tokenizer("kava/shell-teacher")
    monkeypatch.setitem(models.TRAINED_MODELS, "kava/shell-teacher", folder)
    assert load_model("kava/shell-teacher").config.hidden_size == 64
    assert len(load_tokenizer("kava/shell-teacher")) == 258


@pytest.mark.shared
@pytest.mark.parametrize("name", ["stories260K", "babyllama_tok105"])
def test_real_pretrained_models_load_and_read(shared, name):
    model = load_model(shared / "models" / name)
    tokenizer = load_tokenizer(shared / "models" / name)
    assert tokenizer.pad_token is not None
    encoded = tokenizer("Once upon a time, there was a little girl", return_tensors="pt")
    outputs, trace = capture(model, encoded["input_ids"], encoded["attention_mask"])
    assert (trace.num_layers, trace.num_heads) == (5, 4)
    targets = encoded["input_ids"][0, 1:]
    loss = torch.nn.functional.cross_entropy(outputs.logits[0, :-1], targets)
    assert loss < 0.6 * torch.tensor(float(model.config.vocab_size)).log()


@pytest.mark.shared
def test_a_copied_real_model_loads_from_any_folder(shared, tmp_path):
    shutil.copytree(shared / "models" / "stories260K", tmp_path / "copy")
    assert load_model(str(tmp_path / "copy")).config.model_type == "llama"
