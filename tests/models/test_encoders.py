"""Encoders as teachers: their keys and values against the projections, padding, hidden answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    AutoModelForTextEncoding,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    MT5Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    XLMRobertaConfig,
)

from kava.align import CacheGeometry
from kava.models.capture import capture
from kava.models.encoders import PROJECTIONS, is_encoder
from kava.models.load import load_model, load_model_config, load_tokenizer
from kava.models.probe import probe_cache
from kava.models.rotary import rotary_of
from kava.models.traceable import check_traceable
from kava.trace import Segment

SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 1,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4,
    "is_encoder_decoder": False,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**SMALL),
    "electra": lambda: ElectraConfig(embedding_size=8, **SMALL),
    "roberta": lambda: RobertaConfig(**SMALL),
    "xlm-roberta": lambda: XLMRobertaConfig(**SMALL),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=4, hidden_dim=32, max_position_embeddings=40
    ),
    "t5": lambda: T5Config(**T5),
    "mt5": lambda: MT5Config(**T5),
    "umt5": lambda: UMT5Config(**T5),
}
P, R, A = Segment.PROMPT, Segment.REASONING, Segment.ANSWER


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForTextEncoding.from_config(CONFIGS[family]()).eval()
    return model


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> PreTrainedModel:
    return model_of(request.param)


def ids(B: int = 2, T: int = 7) -> Tensor:
    return torch.randint(3, 50, (B, T), generator=torch.Generator().manual_seed(1))


def projections(model: Any, hidden: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Oracle: what each layer's projections make of what goes into it."""
    family = model.config.model_type
    if "t5" in family:
        blocks = [block.layer[0] for block in model.encoder.block]
        normed = [block.layer_norm(h) for block, h in zip(blocks, hidden)]
        return [(b.SelfAttention.k(h), b.SelfAttention.v(h)) for b, h in zip(blocks, normed)]
    if family == "distilbert":
        parts = [layer.attention for layer in model.transformer.layer]
        return [(part.k_lin(h), part.v_lin(h)) for part, h in zip(parts, hidden)]
    parts = [layer.attention.self for layer in model.encoder.layer]
    return [(part.key(h), part.value(h)) for part, h in zip(parts, hidden)]


def test_every_family_has_a_test() -> None:
    assert PROJECTIONS.keys() == CONFIGS.keys()


@torch.no_grad()
def test_keys_and_values_are_those_of_the_projections(encoder: PreTrainedModel) -> None:
    outputs, trace = capture(encoder, ids())
    assert outputs.logits is None
    assert outputs.past_key_values is None
    assert len(outputs.hidden_states) == 3
    geometry = CacheGeometry.from_config(encoder.config)
    assert (trace.num_layers, trace.num_heads, trace.head_dim) == (
        geometry.num_layers, geometry.num_heads, geometry.head_dim,
    )  # fmt: skip
    for layer, parts in enumerate(projections(encoder, outputs.hidden_states)):
        for part, found in zip(parts, (trace.keys, trace.values)):
            expected = part.view(2, 7, 4, -1).transpose(1, 2)
            torch.testing.assert_close(found[:, layer], expected)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(encoder: PreTrainedModel, side: str) -> None:
    _, alone = capture(encoder, ids())
    pad, mask = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 10, dtype=torch.long)
    if side == "left":
        whole, at = torch.cat([pad, ids()], 1), slice(3, None)
        mask[:, :3] = 0
    else:
        whole, at = torch.cat([ids(), pad], 1), slice(0, 7)
        mask[:, 7:] = 0
    _, padded = capture(encoder, whole, mask)
    torch.testing.assert_close(padded.keys[:, :, :, at], alone.keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.values[:, :, :, at], alone.values, atol=1e-5, rtol=1e-4)
    assert padded.mask is not None
    assert padded.positions is not None
    assert padded.positions[:, at].tolist() == [list(range(7))] * 2
    probe_cache(encoder, "it")


@torch.no_grad()
def test_reasoning_does_not_know_the_answer(encoder: PreTrainedModel) -> None:
    segments = torch.tensor([[P, P, R, R, R, A, A]] * 2)
    other = ids()
    other[:, 5:] = (other[:, 5:] + 7) % 40 + 3
    mask = torch.ones_like(other)
    hidden, changed = (capture(encoder, x, mask, segments)[1] for x in (ids(), other))
    assert torch.equal(hidden.keys[:, :, :, :5], changed.keys[:, :, :, :5])
    assert torch.equal(hidden.values[:, :, :, :5], changed.values[:, :, :, :5])
    seen, changed = (capture(encoder, x, mask)[1] for x in (ids(), other))
    assert not torch.allclose(seen.keys[:, 1, :, :5], changed.keys[:, 1, :, :5])
    # but a reasoning token knows those behind it, as a decoder's does not
    later = ids()
    later[:, 4] = (later[:, 4] + 7) % 40 + 3
    _, moved = capture(encoder, later, mask, segments)
    assert not torch.allclose(hidden.keys[:, 1, :, 2], moved.keys[:, 1, :, 2])


def test_hooks_are_gone_and_gradients_stay(encoder: PreTrainedModel) -> None:
    capture(encoder, ids())  # transformers leaves hooks of its own at the first forward
    hooks = sum(len(module._forward_hooks) for module in encoder.modules())
    _, trace = capture(encoder, ids())
    assert sum(len(module._forward_hooks) for module in encoder.modules()) == hooks
    trace.values.sum().backward()
    assert any(p.grad is not None for p in encoder.parameters())
    assert rotary_of(encoder) is None
    check_traceable(encoder)


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: capture(model_of("bert"), ids(), queries=True), "its queries are not recorded"),
    (lambda: capture(model_of("bert"), inputs_embeds=torch.zeros(1, 2, 16)), "reads input_ids"),
    (lambda: capture(model_of("bert"), ids(1, 41)), "reaches position 40, but BertModel has a"),
    (lambda: capture(model_of("roberta"), ids(1, 39)), "but RobertaModel has a table of 40"),
    (lambda: load_model("kava/shell-bert"), "is an encoder, which can be a teacher and nothing"),
    (lambda: load_model_config("kava/shell-t5"), "is an encoder, which can be a teacher"),
    (lambda: load_model("kava/shell-brt", encoders=True), "unknown built-in model"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_an_encoder_does_not_do_is_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_decoder_of_the_bert_family_is_no_encoder() -> None:
    config = BertConfig(**SMALL, is_decoder=True)
    assert is_encoder(BertConfig(**SMALL))
    assert not is_encoder(config)
    assert not is_encoder(LlamaConfig())
    _, trace = capture(BertLMHeadModel(config).eval(), ids())
    assert trace.length == 7


def test_folders_load_as_encoders_where_that_is_asked_for(tmp_path: Path) -> None:
    whole = T5ForConditionalGeneration(T5Config(**{**T5, "is_encoder_decoder": True}))
    masked = BertForMaskedLM(BertConfig(**SMALL))
    for name, model in (("t5", whole), ("bert", masked)):
        model.save_pretrained(tmp_path / name)
        folder = str(tmp_path / name)
        with pytest.raises(ValueError, match="causal"):
            load_model(folder)
        assert is_encoder(load_model_config(folder, encoders=True))
        found = load_model(folder, encoders=True)
        _, trace = capture(found, ids())
        assert not found.config.is_encoder_decoder
        names = [n for n, _ in found.named_parameters()]
        assert not any("decoder" in n or "lm_head" in n for n in names)
    state = masked.bert.state_dict()
    ours = load_model(tmp_path / "bert", encoders=True).state_dict()
    assert all(torch.equal(ours[name], part) for name, part in state.items())
    assert trace.num_layers == 2


@pytest.mark.parametrize("name", ["kava/shell-bert", "kava/shell-t5"])
def test_the_builtin_encoders_read_the_game(name: str) -> None:
    model, tokenizer = load_model(name, encoders=True), load_tokenizer(name)
    again = load_model(name, encoders=True, dtype="float32")
    tokens = tokenizer("Cups abcd moves 3412 order ?", return_tensors="pt").input_ids
    _, trace = capture(model, tokens)
    _, other = capture(again, tokens)
    assert torch.equal(trace.keys, other.keys)
    assert model.config.vocab_size == load_model_config(name, encoders=True).vocab_size


def test_the_bert_familys_separator_ends_a_text(tmp_path: Path) -> None:
    words = {word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"))}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    assert made.eos_token is None
    made.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).eos_token == "[SEP]"
