"""Decoding over the preallocated cache: the tokens are those of slower ways to the same text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from families import FAMILIES, VOCAB_SIZE
from kava.student.cache import PreallocatedCache
from kava.student.decode import Generation, generate_text
from kava.student.latent import LatentStudent

LENGTHS = (5, 9, 2, 7)
NEW = 6

STUDENTS = {
    "none": {"num_latents": 0},
    "sequential": {"num_latents": 3},
    "jacobi": {"num_latents": 4, "decoding": "jacobi", "num_iterations": 2},
    "pause": {"num_latents": 3, "decoding": "jacobi", "num_iterations": 0},
}


def ragged(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Left-padded prompts and their mask [B, P]."""
    generator = torch.Generator().manual_seed(seed)
    P = max(LENGTHS)
    prompt_ids = torch.randint(1, VOCAB_SIZE, (len(LENGTHS), P), generator=generator)
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(P) >= P - lengths).long()
    return prompt_ids * mask, mask


def talkative(family: str) -> PreTrainedModel:
    """A tiny model that does not say the same token over and over."""
    model = FAMILIES[family]()
    head = model.get_output_embeddings()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head.weight = nn.Parameter(torch.randn_like(head.weight))  # no longer the embeddings
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:
            nn.init.constant_(parameter, float(name.endswith("weight")))
    return model


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return talkative(request.param)


def wrap(model: PreTrainedModel, name: str) -> LatentStudent:
    torch.manual_seed(1)
    return LatentStudent.wrap(model, **STUDENTS[name]).eval()


def teacher_forced(student: LatentStudent, prompt_ids: Tensor, mask: Tensor | None) -> Tensor:
    """[B, NEW]: token after token, each from the training forward over all before it."""
    answer_ids = prompt_ids.new_zeros(len(prompt_ids), 1)
    for _ in range(NEW):
        with torch.no_grad():
            logits = student(prompt_ids, mask, answer_ids).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        answer_ids = torch.cat([answer_ids[:, :-1], token, token], dim=1)
    return answer_ids[:, :NEW]


def assert_rows_equal_alone(batch: Generation, alone: list[Generation]) -> None:
    for row, (tokens, single) in enumerate(zip(batch.tokens, alone)):
        length = int(batch.lengths[row])
        assert length == int(single.lengths[0])
        assert torch.equal(tokens[:length], single.tokens[0, :length])


@pytest.mark.parametrize("name", STUDENTS)
def test_latent_answers_are_those_of_the_training_forward(
    model: PreTrainedModel, name: str
) -> None:
    student = wrap(model, name)
    prompt_ids, mask = ragged()
    generated = student.answer(prompt_ids, mask, max_new_tokens=NEW)
    assert torch.equal(generated.tokens, teacher_forced(student, prompt_ids, mask))
    assert len(generated.tokens.unique()) > 3  # the models do tell contexts apart
    assert generated.lengths.tolist() == [NEW] * len(LENGTHS)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_latent_batch_answers_as_each_prompt_alone(model: PreTrainedModel, name: str) -> None:
    student = wrap(model, name)
    prompt_ids, mask = ragged()
    batch = student.answer(prompt_ids, mask, max_new_tokens=NEW)
    alone = [
        student.answer(prompt_ids[i : i + 1, -length:], max_new_tokens=NEW)
        for i, length in enumerate(LENGTHS)
    ]
    assert_rows_equal_alone(batch, alone)


@pytest.mark.parametrize(
    ("name", "passes_before_the_answer"),
    # the last latent shares its pass with the end-of-thought, which predicts the first token
    [("none", 1), ("sequential", 3 + 1), ("jacobi", 2 + 1), ("pause", 1)],
)
@pytest.mark.parametrize("new", [1, NEW])
def test_forward_passes_are_counted_as_they_happen(
    name: str, passes_before_the_answer: int, new: int
) -> None:
    student = wrap(talkative("gpt2"), name)
    calls = []
    student.base.base_model.register_forward_hook(lambda *_: calls.append(1))
    generated = student.answer(*ragged(), max_new_tokens=new)
    assert generated.num_passes == len(calls) == passes_before_the_answer + new - 1


def test_written_text_is_that_of_transformers_generate(model: PreTrainedModel) -> None:
    prompt_ids, mask = ragged()
    generated = generate_text(model, prompt_ids, mask, max_new_tokens=NEW)
    expected = model.generate(
        prompt_ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(generated.tokens, expected[:, prompt_ids.shape[1] :])
    assert generated.num_passes == NEW


def ending(model: PreTrainedModel, prompt_ids: Tensor, mask: Tensor) -> int:
    """A token at which some samples of the batch end early and others do not."""
    tokens = generate_text(model, prompt_ids, mask, max_new_tokens=NEW).tokens
    for token in tokens.unique().tolist():
        ended = (tokens[:, : NEW - 1] == token).any(1)
        if ended.any() and not ended.all():
            return token
    raise AssertionError("no such token: choose another seed")


def test_a_sample_ends_at_its_end_token_and_not_at_its_neighbours(
    model: PreTrainedModel,
) -> None:
    prompt_ids, mask = ragged(1)
    eos = ending(model, prompt_ids, mask)
    batch = generate_text(model, prompt_ids, mask, max_new_tokens=NEW, eos_token_id=eos)
    assert len(set(batch.lengths.tolist())) > 1
    alone = [
        generate_text(model, prompt_ids[i : i + 1, -n:], max_new_tokens=NEW, eos_token_id=eos)
        for i, n in enumerate(LENGTHS)
    ]
    assert_rows_equal_alone(batch, alone)
    for tokens, length in zip(batch.tokens, batch.lengths.tolist()):
        assert (tokens[:length] == eos).sum() == (tokens[length - 1] == eos)
        assert (tokens[length:] == eos).all()


def test_decoding_stops_when_all_samples_have_ended() -> None:
    model = talkative("gpt2")
    prompt_ids, _ = ragged()
    (first,) = generate_text(model, prompt_ids[1:2], max_new_tokens=1).tokens[0].tolist()
    generated = generate_text(model, prompt_ids[1:2], max_new_tokens=NEW, eos_token_id=first)
    assert generated.tokens.tolist() == [[first]]
    assert (generated.lengths.tolist(), generated.num_passes) == ([1], 1)


def test_generation_draws_no_random_numbers_and_keeps_no_graph() -> None:
    student = wrap(talkative("gpt2"), "jacobi")
    state = torch.get_rng_state()
    generated = student.answer(*ragged(), max_new_tokens=2)
    assert torch.equal(state, torch.get_rng_state())
    assert not generated.tokens.requires_grad


def test_at_least_one_token_is_asked_for() -> None:
    with pytest.raises(ValueError, match="max_new_tokens=0 must be at least 1"):
        generate_text(talkative("gpt2"), ragged()[0], max_new_tokens=0)


def test_a_full_cache_refuses_more_and_a_rewound_one_takes_it_again() -> None:
    cache = PreallocatedCache(num_layers=1, max_length=3)
    keys = torch.arange(6.0).reshape(1, 1, 3, 2)
    cache.update(keys, keys, 0)
    with pytest.raises(ValueError, match="4 positions do not fit a cache of 3"):
        cache.update(keys[:, :, :1], keys[:, :, :1], 0)
    cache.rewind(1)
    assert cache.get_seq_length() == 1
    got, _ = cache.update(-keys[:, :, :2], -keys[:, :, :2], 0)
    assert got[0, 0].tolist() == [[0, 1], [0, -1], [-2, -3]]
