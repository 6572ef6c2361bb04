"""The written chain of thought between thought vectors, and given caches in place of latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_latent import A, M, P, places, wrap
from torch import Tensor
from transformers import PreTrainedModel

from families import VOCAB_SIZE
from kava.models.rotary import rotary_of
from kava.names import THOUGHT_POSITIONS
from kava.student import LatentStudent
from kava.student.written import IGNORED, WrittenText, lay_out
from kava.trace import KVTrace
from kava.train.reading import at_latents, others_latents, right_answers

REASONING = [[11, 12, 13, 14], [21], []]
ANSWERS = [[31, 32], [41, 42, 43], [51]]


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


@pytest.fixture(name="text")
def _text() -> WrittenText:
    return lay_out(*padded(REASONING), *padded(ANSWERS))


@pytest.fixture(name="prompt")
def _prompt() -> tuple[Tensor, Tensor]:
    """Prompts of 7, 4 and 5 tokens, left-padded."""
    ids = torch.randint(1, VOCAB_SIZE, (3, P), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    mask[2, :2] = 0
    return ids.masked_fill(mask == 0, 0), mask


def test_the_layout_equals_lists_put_together(text: WrittenText) -> None:
    width = text.ids.shape[1]
    for row, (reasoning, answer) in enumerate(zip(REASONING, ANSWERS)):
        read = ["begin", *reasoning, "end", *answer[:-1]]
        labels = [*reasoning, IGNORED, *answer]
        labels += [IGNORED] * (width - len(labels))
        assert text.labels[row].tolist() == labels
        for column, token in enumerate(read):
            expected = {"begin": 0, "end": 1}.get(str(token), -1)
            assert text.thought[row, column] == expected
            if expected == -1:
                assert text.ids[row, column] == token
        answers = [False] * (len(reasoning) + 1) + [True] * len(answer)
        assert text.answers[row].tolist() == answers + [False] * (width - len(answers))


@pytest.mark.parametrize("kind", THOUGHT_POSITIONS)
def test_reading_equals_each_sample_read_alone_without_padding(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor], text: WrittenText, kind: str
) -> None:
    student = wrap(family_model, thought_positions=kind)
    written = student.read_written(*prompt, text)
    embed = student.get_input_embeddings()
    begin, end = student.thought_embeddings[:1], student.thought_embeddings[1:]
    for row, (reasoning, answer) in enumerate(zip(REASONING, ANSWERS)):
        tokens = prompt[0][row][prompt[1][row] == 1]
        parts = [embed(tokens), begin, embed(torch.tensor(reasoning, dtype=torch.long)), end]
        parts.append(embed(torch.tensor(answer[:-1], dtype=torch.long)))
        read = torch.cat(parts)[None]
        position_ids = places(kind, len(tokens), len(reasoning), read.shape[1])
        outputs = family_model(inputs_embeds=read, position_ids=position_ids)
        logits = outputs.logits[0, len(tokens) :]
        torch.testing.assert_close(written.logits[row, : len(logits)], logits, atol=2e-4, rtol=1e-3)


def test_the_prompt_is_read_once_for_text_and_latents(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor], text: WrittenText
) -> None:
    student = wrap(family_model)
    answers = torch.randint(1, VOCAB_SIZE, (3, A), generator=torch.Generator().manual_seed(2))
    written = student.read_written(*prompt, text)
    apart = student(*prompt, answers)
    together = student(*prompt, answers, prompt_pairs=written.prompt_pairs)
    torch.testing.assert_close(together.logits, apart.logits, atol=2e-4, rtol=1e-3)
    again = student.read_written(*prompt, text, written.prompt_pairs)
    torch.testing.assert_close(again.logits, written.logits, atol=2e-4, rtol=1e-3)
    parameters = [p for p in student.parameters() if p.requires_grad]

    def gradients(pairs: object) -> list[Tensor]:
        read = student.read_written(*prompt, text)
        pairs = read.prompt_pairs if pairs else None
        loss = read.logits.square().mean()
        loss = loss + student(*prompt, answers, prompt_pairs=pairs).logits.square().mean()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [g for g in found if g is not None]

    for shared, single in zip(gradients(pairs=True), gradients(pairs=None)):
        torch.testing.assert_close(shared, single, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("decoding", ["sequential", "jacobi"])
def test_the_students_own_latents_put_in_their_place_give_its_own_answer(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor], decoding: str
) -> None:
    student = wrap(family_model, decoding=decoding)
    answers = torch.randint(1, VOCAB_SIZE, (3, A), generator=torch.Generator().manual_seed(2))
    output = student(*prompt, answers)
    assert output.trace is not None
    logits = student.answer_from(*prompt, answers, output.begin_pairs, output.trace)
    torch.testing.assert_close(logits, output.logits, atol=2e-4, rtol=1e-3)


def test_slots_that_are_left_out_are_hidden_from_the_answer(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor]
) -> None:
    student = wrap(family_model)
    answers = torch.randint(1, VOCAB_SIZE, (3, A), generator=torch.Generator().manual_seed(2))
    output = student(*prompt, answers)
    assert output.trace is not None
    mask = torch.ones(3, M, dtype=torch.bool)
    mask[0, 1] = False
    mask[2, 2:] = False

    def answer(noise: float) -> Tensor:
        hidden = (~mask)[:, None, None, :, None] * noise
        trace = replace(
            output.trace, keys=output.trace.keys + hidden, values=output.trace.values + hidden
        )
        pairs = output.begin_pairs
        return student.answer_from(*prompt, answers, pairs, replace(trace, mask=mask))

    torch.testing.assert_close(answer(100.0), answer(0.0))
    assert (answer(0.0)[0] - output.logits[0]).abs().max() > 1e-3
    torch.testing.assert_close(answer(0.0)[1], output.logits[1], atol=2e-4, rtol=1e-3)


def test_anothers_latents_are_rotated_to_the_samples_own_positions(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor]
) -> None:
    student = wrap(family_model)
    rotary = rotary_of(family_model)
    answers = torch.randint(1, VOCAB_SIZE, (3, A), generator=torch.Generator().manual_seed(2))
    latents: KVTrace = student(*prompt, answers).trace
    moved = others_latents(latents, rotary)
    torch.testing.assert_close(moved.values, latents.values.roll(1, 0))
    torch.testing.assert_close(moved.positions, latents.positions)
    # moved on around the whole batch, every sample has its own again
    for _ in range(len(answers) - 1):
        moved = others_latents(moved, rotary)
    torch.testing.assert_close(moved.keys, latents.keys, atol=1e-4, rtol=1e-4)
    assert at_latents(latents, latents, rotary) is latents


def test_an_answer_is_right_where_every_token_of_it_is() -> None:
    labels = torch.tensor([[3, 4], [3, IGNORED], [3, 4]])
    logits = torch.nn.functional.one_hot(torch.tensor([[3, 4], [3, 9], [3, 5]]), 10).float()
    assert right_answers(logits, labels).tolist() == [True, True, False]


def test_a_student_without_latents_reads_text(
    family_model: PreTrainedModel, prompt: tuple[Tensor, Tensor], text: WrittenText
) -> None:
    student: LatentStudent = wrap(family_model, num_latents=0, decoding="sequential")
    assert student.read_written(*prompt, text).logits.shape == (3, text.ids.shape[1], VOCAB_SIZE)
