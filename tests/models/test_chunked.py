"""A text read in chunks leaves behind what one forward over it does, family by family."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig

import attention_families
from families import VOCAB_SIZE, build, llama
from kava.models.capture import capture
from kava.models.chunked import capture_in_chunks, columns_of_logits

LENGTHS = (4, 13, 9, 1)
CHUNKS = (1, 3, 5, 12, 40)
WITHOUT_QUERIES = {
    "BLOOM": ("bloom", {}),
    "MPT": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 128}),
    "Falcon": ("falcon", {}),
    "Falcon, ALiBi": ("falcon", {"alibi": True}),
}


def ragged(side: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and segments of texts of unequal lengths; pads are a token of the texts."""
    generator = torch.Generator().manual_seed(1)
    length = max(LENGTHS)
    ids = torch.full((len(LENGTHS), length), 5)
    mask = torch.zeros(len(LENGTHS), length, dtype=torch.long)
    for row, size in enumerate(LENGTHS):
        where = slice(0, size) if side == "right" else slice(length - size, length)
        ids[row, where] = torch.randint(1, VOCAB_SIZE, (size,), generator=generator)
        mask[row, where] = 1
    return ids, mask, torch.where(mask.bool(), 1, -1)


def assert_same(found, expected, mask, *, queries: bool = True) -> None:
    """Outputs and traces agree at valid positions."""
    (outputs, trace), (whole_outputs, whole) = found, expected
    valid = mask.bool()
    for name in ("keys", "values", *(["queries"] if queries else [])):
        ours, theirs = getattr(trace, name), getattr(whole, name)
        assert ours.shape == theirs.shape
        for row, keep in enumerate(valid):
            torch.testing.assert_close(
                ours[row][:, :, keep], theirs[row][:, :, keep], atol=2e-5, rtol=1e-3
            )
    for name in ("mask", "positions", "segment_ids"):
        assert torch.equal(getattr(trace, name), getattr(whole, name))
    assert outputs.logits.shape == whole_outputs.logits.shape
    torch.testing.assert_close(
        outputs.logits[valid], whole_outputs.logits[valid], atol=5e-4, rtol=1e-3
    )
    pairs = zip(outputs.hidden_states, whole_outputs.hidden_states, strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours[valid], theirs[valid], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chunk", CHUNKS)
@torch.no_grad()
def test_chunks_leave_behind_what_the_whole_text_does(family_model, chunk, side):
    ids, mask, segments = ragged(side)
    found = capture_in_chunks(family_model, ids, mask, segments, chunk=chunk, queries=True)
    assert_same(found, capture(family_model, ids, mask, segments, queries=True), mask)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", attention_families.FAMILIES)
@torch.no_grad()
def test_chunks_attend_as_every_family_does(name, side):
    """Windows, attention chunks and sinks that end inside a chunk and before it."""
    model = attention_families.FAMILIES[name].build()
    ids, mask, segments = ragged(side)
    # before any other reading, and on the left the first chunk of the first text is all padding
    found = capture_in_chunks(model, ids, mask, segments, chunk=3, queries=True)
    whole = capture(model, ids, mask, segments, queries=True)
    assert_same(found, whole, mask)
    form = found[1].attention
    assert (form.scaling, form.window, form.chunk) == (
        whole[1].attention.scaling,
        whole[1].attention.window,
        whole[1].attention.chunk,
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", WITHOUT_QUERIES)
@torch.no_grad()
def test_chunks_count_distances_as_families_without_positions_do(name, side):
    kind, options = WITHOUT_QUERIES[name]
    model = attention_families.Family(kind=kind, options=options).build()
    ids, mask, segments = ragged(side)
    found = capture_in_chunks(model, ids, mask, segments, chunk=3)
    assert_same(found, capture(model, ids, mask, segments), mask, queries=False)


@torch.no_grad()
def test_a_text_without_a_mask_is_read_alike():
    model = llama()
    ids = torch.randint(1, VOCAB_SIZE, (2, 11))
    _, found = capture_in_chunks(model, ids, chunk=4, hidden_states=False, logits_to_keep=1)
    _, whole = capture(model, ids, hidden_states=False, logits_to_keep=1)
    assert found.mask is None
    assert torch.equal(found.positions, whole.positions)
    torch.testing.assert_close(found.keys, whole.keys, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [0, 1, 7, 99, torch.tensor([0]), torch.tensor([3, 4, 9])])
@torch.no_grad()
def test_logits_are_those_that_were_asked_for(keep):
    model = llama()
    ids = torch.randint(1, VOCAB_SIZE, (2, 11))
    found, _ = capture_in_chunks(model, ids, chunk=4, logits_to_keep=keep)
    whole, _ = capture(model, ids, logits_to_keep=keep)
    assert found.logits.shape == whole.logits.shape
    torch.testing.assert_close(found.logits, whole.logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_no_forward_is_longer_than_a_chunk():
    model = llama()
    widths: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: widths.append(output.shape[1])
    )
    ids = torch.randint(1, VOCAB_SIZE, (2, 11))
    capture_in_chunks(model, ids, chunk=4, logits_to_keep=1)
    assert widths == [4, 4, 3]


@pytest.mark.parametrize("chunk", [0, -1, True, 2.0])
def test_a_chunk_of_no_positions_is_refused(chunk):
    with pytest.raises(ValueError, match=f"chunk={chunk!r} must be a whole number of positions"):
        capture_in_chunks(llama(), torch.ones(1, 4, dtype=torch.long), chunk=chunk)


def test_an_encoder_is_refused():
    config = BertConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(ValueError, match="is an encoder, whose positions look at later ones"):
        capture_in_chunks(BertForMaskedLM(config), torch.ones(1, 4, dtype=torch.long), chunk=99)


@torch.no_grad()
def test_frequencies_that_change_with_the_length_are_refused_beyond_it():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=8,
        rope_parameters=rope,
    )
    model = build(config)
    ids = torch.randint(1, VOCAB_SIZE, (2, 9))
    mask = torch.ones_like(ids)
    with pytest.raises(ValueError, match="change for texts above 8 positions, and a text has 9"):
        capture_in_chunks(model, ids, mask, chunk=4)
    mask[:, 0] = 0
    _, found = capture_in_chunks(model, ids, mask, chunk=4)
    _, whole = capture(model, ids, mask)
    torch.testing.assert_close(found.keys[:, :, :, 1:], whole.keys[:, :, :, 1:])


def test_columns_out_of_order_are_refused():
    with pytest.raises(ValueError, match="must be ascending"):
        columns_of_logits(torch.tensor([3, 1]), 5)
