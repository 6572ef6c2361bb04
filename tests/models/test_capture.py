"""One forward gives outputs and the trace, equal to the model's own, padded or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BloomConfig,
    DynamicCache,
    Lfm2Config,
    LlamaForCausalLM,
    MambaConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from families import FAMILIES, SLIDING_WINDOW, VOCAB_SIZE, build, gpt2, llama
from kava.models.capture import capture, position_ids_from_mask, record_queries, trace_from_cache

T = 10
HEADS = {"gpt2": 4, "llama": 2, "qwen2": 1, "mistral": 2, "gemma": 1, "gpt_neox": 4}


def tokens(batch_size: int = 2, length: int = T, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCAB_SIZE, (batch_size, length), generator=generator)


def padded(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows as one batch; pads are token 5, which also occurs in texts."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), 5)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[index, where] = row
        mask[index, where] = 1
    return ids, mask


class ForwardCounter:
    """Counts the passes through a model by its input embedding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.count = 0
        model.get_input_embeddings().register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


def test_the_trace_equals_the_models_own_cache(family_model):
    ids = tokens()
    with torch.no_grad():
        outputs, trace = capture(family_model, ids)
        cache = DynamicCache()
        expected = family_model(ids, past_key_values=cache, output_hidden_states=True)
    assert torch.equal(outputs.logits, expected.logits)
    assert len(outputs.hidden_states) == 4
    for found, wanted in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(found, wanted)
    assert trace.num_layers == len(cache.layers) == 3
    for index, layer in enumerate(cache.layers):
        assert torch.equal(trace.keys[:, index], layer.keys)
        assert torch.equal(trace.values[:, index], layer.values)
    assert torch.equal(trace.positions, torch.arange(T).expand(2, T))
    assert trace.mask is None
    assert trace.rotated


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_head_dims_are_the_caches(family):
    _, trace = capture(FAMILIES[family](), tokens(), queries=True)
    head_dim = 16 if family == "gemma" else 8
    assert trace.keys.shape == (2, 3, HEADS[family], T, head_dim)
    assert trace.queries.shape == (2, 3, 4, T, head_dim)


def test_one_capture_is_one_forward(family_model):
    counter = ForwardCounter(family_model)
    capture(family_model, tokens(), queries=True)
    assert counter.count == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(family_model, side):
    rows = [tokens(1, length, seed=length)[0] for length in (4, 9, 7)]
    ids, mask = padded(rows, side)
    with torch.no_grad():
        outputs, trace = capture(family_model, ids, mask, queries=True)
        for index, row in enumerate(rows):
            alone_outputs, alone = capture(family_model, row[None], queries=True)
            where = mask[index].bool()
            for name in ("keys", "values", "queries"):
                found = getattr(trace, name)[index][:, :, where]
                torch.testing.assert_close(found, getattr(alone, name)[0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(
                outputs.logits[index, where], alone_outputs.logits[0], atol=1e-4, rtol=1e-4
            )
            assert torch.equal(trace.positions[index, where], alone.positions[0])
    assert torch.equal(trace.mask, mask.bool())


def test_position_ids_count_valid_tokens_and_never_go_below_zero():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0]])
    expected = [[0, 0, 0, 1], [0, 1, 1, 2], [0, 0, 0, 0]]
    assert position_ids_from_mask(mask).tolist() == expected


def test_segments_and_given_positions_are_recorded():
    segments = torch.tensor([[0] * 4 + [1] * 4 + [2] * 2] * 2)
    positions = torch.arange(3, 3 + T).expand(2, T)
    _, trace = capture(FAMILIES["llama"](), tokens(), segment_ids=segments, position_ids=positions)
    assert torch.equal(trace.segment_ids, segments)
    assert torch.equal(trace.positions, positions)


def test_gradients_reach_the_model_through_every_part(family_model):
    family_model.train()
    _, trace = capture(family_model, tokens(), queries=True)
    for name in ("keys", "values", "queries"):
        family_model.zero_grad()
        getattr(trace, name).square().sum().backward(retain_graph=True)
        assert family_model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_teacher_without_gradients_gives_a_trace_without():
    with torch.no_grad():
        _, trace = capture(FAMILIES["llama"](), tokens())
    assert not trace.keys.requires_grad


def test_a_sliding_window_keeps_all_positions_and_still_slides():
    model = FAMILIES["mistral"]()
    own = model(tokens(), use_cache=True)
    assert own.past_key_values.layers[0].keys.shape[2] == SLIDING_WINDOW - 1
    outputs, trace = capture(model, tokens())
    assert trace.length == T
    assert torch.equal(outputs.logits, own.logits)
    model.config.sliding_window = None
    assert not torch.allclose(capture(model, tokens())[0].logits, own.logits, atol=1e-3)


def test_a_cache_that_drops_positions_is_refused():
    model = FAMILIES["mistral"]()
    with pytest.raises(ValueError, match="sliding window: build it as DynamicCache"):
        capture(model, tokens(), past_key_values=DynamicCache(config=model.config))


def test_a_capture_continues_from_a_cache(family_model):
    ids, mask = padded([tokens(1, 6)[0], tokens(1, 9, seed=1)[0]], "left")
    with torch.no_grad():
        outputs, whole = capture(family_model, ids, mask, queries=True)
        cache = DynamicCache()
        capture(family_model, ids[:, :5], mask[:, :5], past_key_values=cache)
        rest_outputs, rest = capture(
            family_model, ids[:, 5:], mask, past_key_values=cache, queries=True
        )
    assert cache.get_seq_length() == 9
    tail = whole.slice(5)
    for name in ("keys", "values", "queries"):
        torch.testing.assert_close(getattr(rest, name), getattr(tail, name), atol=1e-5, rtol=1e-4)
    assert torch.equal(rest.positions, tail.positions)
    assert torch.equal(rest.mask, tail.mask)
    torch.testing.assert_close(rest_outputs.logits, outputs.logits[:, 5:], atol=1e-4, rtol=1e-4)


def test_positions_continue_behind_a_cache_without_a_mask():
    model, cache = FAMILIES["llama"](), DynamicCache()
    capture(model, tokens(length=4), past_key_values=cache)
    _, trace = capture(model, tokens(length=2), past_key_values=cache)
    assert trace.positions.tolist() == [[4, 5], [4, 5]]


def test_embeddings_do_what_their_tokens_do(family_model):
    embeddings = family_model.get_input_embeddings()(tokens())
    _, found = capture(family_model, inputs_embeds=embeddings)
    _, expected = capture(family_model, tokens())
    assert torch.equal(found.keys, expected.keys)


def test_the_head_is_computed_where_asked_for():
    outputs, trace = capture(FAMILIES["llama"](), tokens(), logits_to_keep=3, hidden_states=False)
    assert outputs.logits.shape[1] == 3
    assert outputs.hidden_states is None
    assert trace.length == T


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_queries_give_the_models_own_attention(family, attention):
    ids, mask = padded([tokens(1, 6)[0], tokens(1, 9, seed=1)[0]], "left")
    model, eager = FAMILIES[family](attention=attention), FAMILIES[family](attention="eager")
    with torch.no_grad():
        outputs, trace = capture(model, ids, mask, queries=True)
        plain, _ = capture(model, ids, mask)
        expected = eager(
            ids,
            attention_mask=mask,
            position_ids=position_ids_from_mask(mask),
            past_key_values=DynamicCache(),
            output_attentions=True,
        ).attentions
    assert torch.equal(outputs.logits, plain.logits)
    assert model.config._attn_implementation == attention
    keys = trace.keys.repeat_interleave(4 // trace.num_heads, dim=2)
    scores = trace.queries @ keys.transpose(-1, -2) / trace.head_dim**0.5
    t = torch.arange(9)
    visible = (t[:, None] >= t) & mask[:, None].bool()
    if family == "mistral":
        visible &= t[:, None] - t < SLIDING_WINDOW
    found = scores.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
    for index, layer in enumerate(expected):
        for sample in range(2):
            rows = mask[sample].bool()
            torch.testing.assert_close(
                found[sample, index][:, rows], layer[sample][:, rows], atol=1e-5, rtol=1e-4
            )


def test_another_attention_implementation_is_delegated_to_under_its_own_name():
    seen = []

    def fused(module: nn.Module, *args: object, **kwargs: object) -> object:
        seen.append(module.config._attn_implementation)
        return AttentionInterface()["sdpa"](module, *args, **kwargs)

    AttentionInterface.register("fused_for_this_test", fused)
    AttentionMaskInterface.register("fused_for_this_test", AttentionMaskInterface()["sdpa"])
    model = FAMILIES["llama"](attention="fused_for_this_test")
    ids, mask = padded([tokens(1, 6)[0], tokens(1, 9, seed=1)[0]], "left")
    _, trace = capture(model, ids, mask, queries=True)
    assert seen == ["fused_for_this_test"] * 3
    _, expected = capture(FAMILIES["llama"](), ids, mask, queries=True)
    assert torch.equal(trace.queries, expected.queries)


def test_a_recorder_holds_several_forwards_one_by_one():
    model, ids, cache = FAMILIES["qwen2"](), tokens(), DynamicCache()
    _, whole = capture(model, ids, queries=True)
    with record_queries(model) as recorder:
        for start in range(0, T, 5):
            model.model(
                ids[:, start : start + 5],
                position_ids=torch.arange(start, start + 5)[None],
                past_key_values=cache,
            )
    model(ids)
    assert [len(layers) for layers in recorder.forwards] == [3, 3]
    queries = torch.cat([recorder.stacked(0), recorder.stacked(1)], dim=3)
    torch.testing.assert_close(queries, whole.queries, atol=1e-5, rtol=1e-4)
    assert torch.equal(recorder.stacked(), recorder.stacked(1))
    recorder.clear()
    with pytest.raises(ValueError, match="no queries were recorded"):
        recorder.stacked()


def test_a_recording_leaves_no_trace_behind_an_error():
    model = FAMILIES["llama"]()
    with pytest.raises(RuntimeError, match="stop"), record_queries(model):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == "sdpa"
    with record_queries(model) as recorder:
        model(tokens())
    assert len(recorder.forwards) == 1


def test_a_recording_is_not_nested():
    model = FAMILIES["llama"]()
    with record_queries(model) as outer, pytest.raises(ValueError, match="do not nest"):
        capture(model, tokens(), queries=True)
    assert outer.forwards == []
    capture(model, tokens(), queries=True)


def test_a_second_model_of_the_same_config_is_not_recorded():
    model = FAMILIES["llama"]()
    other = LlamaForCausalLM(model.config).eval()
    assert other.config is model.config
    expected = other(tokens()).logits
    with record_queries(model) as recorder:
        model(tokens())
        assert torch.equal(other(tokens()).logits, expected)
    assert [len(layers) for layers in recorder.forwards] == [3]


def test_activation_checkpointing_is_refused_in_training_only():
    model = FAMILIES["llama"]()
    model.activation_checkpointing_enable()
    capture(model, tokens())
    model.train()
    with pytest.raises(ValueError, match="checkpointing on, which empties its key/value cache"):
        capture(model, tokens())
    with pytest.raises(ValueError, match="checkpointing"), record_queries(model):
        pass
    model.activation_checkpointing_disable()
    capture(model, tokens())


def test_models_without_keys_and_values_are_refused():
    config = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=16, num_hidden_layers=2)
    with pytest.raises(ValueError, match="MambaForCausalLM has recurrent layers"):
        capture(build(config, attention="eager"), tokens())
    kinds = ["full_attention", "conv"]
    config = Lfm2Config(
        vocab_size=VOCAB_SIZE, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, layer_types=kinds,
    )  # fmt: skip
    with pytest.raises(ValueError, match="layer 1 of Lfm2ForCausalLM is of the type conv"):
        capture(build(config), tokens())
    config = T5Config(vocab_size=VOCAB_SIZE, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
        capture(T5ForConditionalGeneration(config), tokens())


def test_a_model_whose_queries_pass_by_the_interface_is_refused():
    model = build(
        BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=16, n_layer=2, n_head=2), attention="eager"
    )
    _, trace = capture(model, tokens())
    assert trace.keys.shape == (2, 2, 2, T, 8)
    with pytest.raises(ValueError, match="queries of BloomForCausalLM cannot be recorded"):
        capture(model, tokens(), queries=True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": tokens(), "attention_mask": torch.ones(2, T + 1)}, r"must be \[2, 10\]"),
        ({"input_ids": tokens(), "segment_ids": torch.ones(2, T + 1)}, "segment_ids must be"),
        ({"input_ids": tokens()[0]}, r"input_ids must be \[B, T\] .* got \(10,\)"),
        ({"input_ids": tokens()[:, :0]}, r"at least one sample and position, got \(2, 0\)"),
        ({"input_ids": "hi"}, r"input_ids must be \[B, T\] .* got str"),
        ({"inputs_embeds": torch.ones(2, 3)}, r"must be \[B, T, width\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        capture(FAMILIES["gpt2"](), **inputs)


def test_columns_of_a_cache_are_cut_before_they_are_stacked():
    model, cache = FAMILIES["llama"](), DynamicCache()
    capture(model, tokens(), past_key_values=cache)
    mask = torch.ones(2, 3)
    trace = trace_from_cache(cache, start=7, mask=mask, positions=torch.arange(7, T).expand(2, 3))
    assert trace.length == 3
    assert trace.mask.dtype == torch.bool
    assert trace.keys.untyped_storage().nbytes() == 2 * 3 * 2 * 3 * 8 * 4
    for index, layer in enumerate(cache.layers):
        assert torch.equal(trace.keys[:, index], layer.keys[:, :, 7:])
        assert torch.equal(trace.values[:, index], layer.values[:, :, 7:])
    assert torch.equal(
        trace_from_cache(cache, 2, -1).keys, trace_from_cache(cache).keys[..., 2:9, :]
    )


def test_an_empty_or_truncated_cache_is_refused():
    with pytest.raises(ValueError, match="holds no layers"):
        trace_from_cache(DynamicCache())
    layers = [(torch.zeros(1, 1, 5, 2),) * 2, (torch.zeros(1, 1, 3, 2),) * 2]
    with pytest.raises(ValueError, match="sliding window cannot be traced"):
        trace_from_cache(layers)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            [[3, VOCAB_SIZE]],
            rf"input_ids hold {VOCAB_SIZE}, but GPT2LMHeadModel has embeddings for",
        ),
        ([[-1, 3]], r"input_ids hold -1, but GPT2LMHeadModel has embeddings for the ids 0 to"),
        ([[3] * 129], r"reaches position 128, but GPT2LMHeadModel has a table of 128 positions"),
    ],
)
def test_what_a_model_has_no_row_for_is_refused(ids: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capture(gpt2(), torch.tensor(ids))


@pytest.mark.parametrize(("model", "rest"), [(gpt2(), 28), (llama(), 60)], ids=["gpt2", "llama"])
def test_the_last_position_of_a_table_and_computed_ones_are_read(
    model: PreTrainedModel, rest: int
) -> None:
    outputs, _ = capture(model, tokens(length=100))
    _, trace = capture(model, tokens(length=rest), past_key_values=outputs.past_key_values)
    assert trace.length == rest
