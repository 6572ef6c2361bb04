"""Quantised teachers: what is quantised, how close their caches are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from kava.errors import KavaError
from kava.models import quantise
from kava.models.capture import capture
from kava.models.load import load_model
from kava.models.quantise import check_quantization, quantised_line

pytest.importorskip("bitsandbytes")

SIZES = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
CONFIGS = {
    "llama": LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, **SIZES,
    ),
    "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=64, **SIZES),
}  # fmt: skip
MOST_OFF = {"8bit": 0.03, "4bit": 0.2}
"""Relative distance of keys and values to those of float32."""


def saved(folder: Path, name: str) -> tuple[str, PreTrainedModel]:
    """A model of random weights in a folder, and as it is in float32."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    model.save_pretrained(folder)
    return str(folder), model


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_is_of_float_and_close_to_that_of_float32(
    name: str, bits: str, tmp_path: Path
) -> None:
    source, plain = saved(tmp_path, name)
    model = load_model(source, dtype="float32", quantization=bits)
    ids = torch.arange(2, 42).view(2, 20)
    _, expected = capture(plain, ids, hidden_states=False)
    _, found = capture(model, ids, hidden_states=False)
    for part in ("keys", "values"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert type(ours) is torch.Tensor
        assert ours.dtype == torch.float32
        off = float(((ours - theirs).norm() / theirs.norm()).detach())
        assert 0 < off < MOST_OFF[bits]
    assert model.get_memory_footprint() < plain.get_memory_footprint()


def test_4_bits_are_nf4_with_doubly_quantised_scales(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, "llama")
    model = load_model(source, dtype="float32", quantization="4bit")
    state = model.model.layers[0].self_attn.q_proj.weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)


def test_the_layers_of_both_kinds_are_named(tmp_path: Path) -> None:
    source, _ = saved(tmp_path, "gpt2")
    line = quantised_line(load_model(source, quantization="8bit"))
    assert line == (
        "8 layers in 8 bits (98,304 weights); not quantised: wte, wpe, 2 ln_1, 2 ln_2, ln_f, "
        "lm_head, biases"
    )
    assert quantised_line(load_model(source)) is None


def test_layers_that_the_cpus_kernel_of_4_bits_cannot_read_keep_their_dtype() -> None:
    """Of kava/shell-teacher the MLP has 172 rows, which are no blocks of 32."""
    model = load_model("kava/shell-teacher", quantization="4bit", device="cpu")
    line = quantised_line(model)
    assert line is not None
    assert line.startswith("8 layers in 4 bits")
    assert "2 gate_proj, 2 up_proj, 2 down_proj" in line
    capture(model, torch.tensor([[1, 2, 3]]))


def test_what_cannot_be_quantised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'kava/tiny-gpt2' has none"):
        load_model("kava/tiny-gpt2", quantization="4bit")
    odd = LlamaConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, **SIZES
    )
    AutoModelForCausalLM.from_config(odd).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no linear layer that bitsandbytes can quantise"):
        load_model(tmp_path, quantization="4bit")


def test_a_device_without_it_and_a_missing_library_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import bitsandbytes

    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", fails)
    with pytest.raises(ValueError, match=r"4bit: .* cannot do it on cpu .*no kernel for this"):
        check_quantization("4bit", "cpu")
    check_quantization("8bit", "cpu")
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    with pytest.raises(KavaError, match=r"pip install .*'\.\[quant\]'"):
        check_quantization("8bit", "cpu")
