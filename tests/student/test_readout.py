"""What latents are shown to read as: the likeliest tokens, out of the passes that answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from kava.data.records import Template
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import complete
from kava.student.latent import LatentStudent
from kava.student.readout import check_readable, describe, likeliest

QUESTIONS = ["How many?", "And how many of the others are there?", "Why"]
NAMES = ["one", "two", "three"]


def student(**options: Any) -> LatentStudent:
    torch.manual_seed(0)
    return LatentStudent.wrap(load_model("kava/tiny-llama"), **{"num_latents": 2, **options})


def test_the_likeliest_tokens_come_first_with_their_probabilities() -> None:
    tokenizer = load_tokenizer("kava/tiny-llama")
    readings = torch.full((2, 3, len(tokenizer)), -math.inf)
    readings[:, :, 5], readings[:, :, 7] = math.log(0.25), math.log(0.75)
    readings[1, 2, 5] = math.log(3.0)
    rows = likeliest(readings, tokenizer, 2)
    words = [tokenizer.decode([token]) for token in (7, 5)]
    assert [len(row) for row in rows] == [3, 3]
    assert [token.text for token in rows[0][0]] == words
    assert [token.probability for token in rows[0][0]] == pytest.approx([0.75, 0.25])
    assert [token.text for token in rows[1][2]] == words[::-1]
    assert describe(rows[0]).splitlines()[0] == (
        f"    latent 1: {words[0]!r} 75.0%, {words[1]!r} 25.0%"
    )


@pytest.mark.parametrize("options", [{}, {"decoding": "jacobi", "num_iterations": 1}])
def test_they_are_those_of_training_alone_and_in_a_batch(options: dict[str, Any]) -> None:
    model, tokenizer = student(**options).eval(), load_tokenizer("kava/tiny-llama")
    shown, _ = complete(
        model, tokenizer, QUESTIONS, Template(), names=NAMES, max_new_tokens=2, top_k=4
    )
    plain, _ = complete(model, tokenizer, QUESTIONS, Template(), names=NAMES, max_new_tokens=2)
    assert [c.readings for c in plain] == [()] * 3
    for question, name, completion, other in zip(QUESTIONS, NAMES, shown, plain):
        assert (completion.text, completion.num_passes) == (other.text, other.num_passes)
        alone, _ = complete(
            model, tokenizer, [question], Template(), names=[name], max_new_tokens=2, top_k=4
        )
        ids = torch.tensor([tokenizer(question + "\n").input_ids])
        with torch.no_grad():
            readings = model(ids, None, torch.ones(1, 1, dtype=torch.long), readings=True).readings
        (expected,) = likeliest(readings, tokenizer, 4)
        for ours, theirs, trained in zip(completion.readings, alone[0].readings, expected):
            texts = [token.text for token in ours]
            assert texts == [token.text for token in theirs] == [token.text for token in trained]
            assert [token.probability for token in ours] == pytest.approx(
                [token.probability for token in trained], rel=1e-3
            )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_latents": 0}, "x has no latents"),
        ({"decoding": "jacobi", "num_iterations": 0}, "x has pause tokens for latents"),
    ],
)
def test_there_must_be_something_to_read(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"--show_latents: {complaint}"):
        check_readable(student(**options), "x", 3)


def test_a_model_that_writes_has_no_latents() -> None:
    with pytest.raises(ValueError, match="x writes its reasoning and has no latents"):
        check_readable(load_model("kava/tiny-llama"), "x", 3)


@pytest.mark.parametrize("top_k", [0, 10_000])
def test_a_number_of_tokens_out_of_range_is_refused(top_k: int) -> None:
    with pytest.raises(ValueError, match=rf"--top_k {top_k} must be from 1 to the \d+ tokens"):
        check_readable(student(), "x", top_k)
