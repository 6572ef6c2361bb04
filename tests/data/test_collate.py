"""Batches: the layout against a slow oracle, and padding that is never taken for text."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kava.data import Batch, Collator, Encoded

PAD = 3


@st.composite
def encoded_samples(draw: st.DrawFn, own_prompt: bool | None = None) -> Encoded:
    prompt, reasoning, cue, value = (draw(st.integers(low, 6)) for low in (1, 1, 0, 1))
    # few different ids, so that text holds the padding id as well
    ids = draw(
        st.lists(
            st.integers(0, 5),
            min_size=prompt + reasoning + cue + value,
            max_size=prompt + reasoning + cue + value,
        )
    )
    own = draw(st.booleans()) if own_prompt is None else own_prompt
    student = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6)) if own else None
    return Encoded(
        id=str(draw(st.integers(0, 999))),
        input_ids=np.array(ids, dtype=np.int32),
        prompt_length=prompt,
        answer_start=prompt + reasoning,
        value_start=prompt + reasoning + cue,
        student_prompt_ids=None if student is None else np.array(student, dtype=np.int32),
    )


def left(rows: list[list[int]], fill: int) -> list[list[int]]:
    width = max(map(len, rows))
    return [[fill] * (width - len(row)) + row for row in rows]


def right(rows: list[list[int]], fill: int) -> list[list[int]]:
    width = max(map(len, rows))
    return [row + [fill] * (width - len(row)) for row in rows]


def slow_batch(samples: list[Encoded]) -> dict[str, object]:
    """The layout, sample by sample and token by token."""
    ids = [s.input_ids.tolist() for s in samples]
    heads = [row[: s.prompt_length] for row, s in zip(ids, samples)]
    tails = [row[s.prompt_length :] for row, s in zip(ids, samples)]
    answers = [row[s.answer_start :] for row, s in zip(ids, samples)]
    own = [
        head if s.student_prompt_ids is None else s.student_prompt_ids.tolist()
        for head, s in zip(heads, samples)
    ]

    def rows(prompt_fill: list[list[int]], rest_fill: list[list[int]], fill: int) -> list:
        return [a + b for a, b in zip(left(prompt_fill, fill), right(rest_fill, fill))]

    def same(parts: list[list[int]], value: int) -> list[list[int]]:
        return [[value] * len(part) for part in parts]

    reasons = [
        [1] * (s.answer_start - s.prompt_length) + [2] * (len(s.input_ids) - s.answer_start)
        for s in samples
    ]
    width = max(map(len, heads))
    return {
        "ids": [s.id for s in samples],
        "input_ids": rows(heads, tails, PAD),
        "attention_mask": rows(same(heads, 1), same(tails, 1), 0),
        "segment_ids": rows(same(heads, 0), reasons, -1),
        "labels": rows(same(heads, -100), tails, -100),
        "prompt_ids": left(own, PAD),
        "prompt_mask": left(same(own, 1), 0),
        "answer_ids": right(answers, PAD),
        "answer_mask": right(same(answers, 1), 0),
        "teacher_codi": [width - s.prompt_length + s.value_start - 1 for s in samples],
        "student_codi": [s.value_start - s.answer_start - 1 for s in samples],
        "shared_prompt": own == heads,
    }


def as_lists(batch: Batch) -> dict[str, object]:
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


@given(st.lists(encoded_samples(), min_size=1, max_size=5))
def test_a_batch_is_what_the_slow_layout_gives(samples: list[Encoded]) -> None:
    batch = Collator(PAD)(samples)
    assert as_lists(batch) == slow_batch(samples)
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            assert value.dtype == torch.int64


@given(st.lists(encoded_samples(own_prompt=False), min_size=1, max_size=5))
def test_the_prompt_is_a_slice_and_every_token_comes_back(samples: list[Encoded]) -> None:
    batch = Collator(PAD)(samples)
    P = batch["prompt_ids"].shape[1]
    assert batch["shared_prompt"]
    assert torch.equal(batch["input_ids"][:, :P], batch["prompt_ids"])
    assert torch.equal(batch["attention_mask"][:, :P], batch["prompt_mask"])
    assert (batch["segment_ids"][:, P:] != 0).all()
    for row, sample in enumerate(samples):
        valid = batch["attention_mask"][row] == 1
        assert batch["input_ids"][row][valid].tolist() == sample.input_ids.tolist()
        assert batch["segment_ids"][row][valid].tolist() == sample.segment_ids.tolist()
        # the padding id in the text, and an end mark that is the padding id, are supervised
        assert (batch["labels"][row] != -100).sum() == len(sample.input_ids) - sample.prompt_length
        before = batch["teacher_codi"][row] + 1
        assert batch["input_ids"][row, before] == sample.input_ids[sample.value_start]
        after = batch["student_codi"][row] + 1
        assert batch["answer_ids"][row, after] == sample.input_ids[sample.value_start]


def sample(name: str = "a", prompt: int = 2, positions: tuple[int, ...] | None = None) -> Encoded:
    return Encoded(
        id=name,
        input_ids=np.arange(10, 10 + prompt + 5, dtype=np.int32),
        prompt_length=prompt,
        answer_start=prompt + 2,
        value_start=prompt + 3,
        positions=positions,
    )


def test_a_small_batch_written_out() -> None:
    batch = Collator(PAD)([sample(prompt=1, positions=(1, 2)), sample(prompt=3, positions=(3, 4))])
    assert as_lists(batch) == {
        "ids": ["a", "a"],
        "input_ids": [[3, 3, 10, 11, 12, 13, 14, 15], [10, 11, 12, 13, 14, 15, 16, 17]],
        "attention_mask": [[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8],
        "segment_ids": [[-1, -1, 0, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 2, 2, 2]],
        "labels": [
            [-100, -100, -100, 11, 12, 13, 14, 15],
            [-100, -100, -100, 13, 14, 15, 16, 17],
        ],
        "prompt_ids": [[3, 3, 10], [10, 11, 12]],
        "prompt_mask": [[0, 0, 1], [1, 1, 1]],
        "answer_ids": [[13, 14, 15], [15, 16, 17]],
        "answer_mask": [[1, 1, 1], [1, 1, 1]],
        "teacher_codi": [5, 5],
        "student_codi": [0, 0],
        "shared_prompt": True,
        "positions": [[3, 4], [3, 4]],
    }


def test_a_students_prompt_that_reads_the_same_is_shared() -> None:
    own = replace(sample(), student_prompt_ids=np.array([10, 11], dtype=np.int32))
    assert Collator(PAD)([own, sample(prompt=3)])["shared_prompt"] is True
    other = replace(own, student_prompt_ids=np.array([10, 12], dtype=np.int32))
    batch = Collator(PAD)([other, sample(prompt=3)])
    assert batch["shared_prompt"] is False
    assert batch["prompt_ids"].tolist() == [[3, 10, 12], [10, 11, 12]]


@pytest.mark.parametrize("positions", [None, (3,)])
def test_given_positions_must_be_as_many_for_all(positions: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match="differ in given positions"):
        Collator(PAD)([sample(positions=(3, 4)), sample(positions=positions)])


def test_no_samples_make_no_batch() -> None:
    with pytest.raises(ValueError, match="empty"):
        Collator(PAD)([])


def test_a_collator_can_be_sent_to_workers() -> None:
    collate = pickle.loads(pickle.dumps(Collator(PAD)))
    samples = pickle.loads(pickle.dumps([sample()]))
    assert as_lists(collate(samples)) == as_lists(Collator(PAD)([sample()]))
