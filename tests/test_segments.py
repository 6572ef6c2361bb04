"""Segments: markers found in text, tokens placed by their last character."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kava.segments import SegmentIdentifier, token_segments

IDENTIFY = SegmentIdentifier()


def parts(text: str, **options: str) -> tuple[str, str, str]:
    spans = IDENTIFY.identify(text, **options)
    assert spans.missing == ()
    assert 0 <= spans.reasoning_start < spans.answer_start <= spans.value_start <= spans.length
    assert spans.length == len(text)
    return (
        text[: spans.reasoning_start],
        text[spans.reasoning_start : spans.answer_start],
        text[spans.value_start :],
    )


@pytest.mark.parametrize(
    ("text", "reasoning", "value"),
    [
        ("How many?\nShe sold 48/2 = 24.\n#### 72", "She sold 48/2 = 24.\n", "72"),
        ("Find it.\nIt is 2 x 3 = <<2*3=6>>6.\n#### 6", "It is 2 x 3 = <<2*3=6>>6.\n", "6"),
        ("How much? <<4-2=2>> <<2/.5=4>> #### 4", "<<4-2=2>> <<2/.5=4>> ", "4"),
        ("Add. Let's think step by step. 1+1=2. The answer is 2", None, "2"),
        ("Add.\nReasoning: 1+1=2\nAnswer: 2", "Reasoning: 1+1=2\n", "2"),
        ("Add.\nStep 1: 1+1=2\nSo the answer is: 2", "Step 1: 1+1=2\n", "2"),
        ("Add.\n1. One is 1.5 less.\n2. Done.\nThe answer is 2", None, "2"),
        ("三加四是多少？解：三加四等于七。答案是7", "解：三加四等于七。", "7"),
        ("计算三加四。\n解答：等于七。\n所以答案为：7", "解答：等于七。\n", "7"),
        ("三加四是多少？\n三加四等于七。\n答：7", "三加四等于七。\n", "7"),
    ],
)
def test_the_parts_begin_at_their_markers(text: str, reasoning: str | None, value: str) -> None:
    prompt, found, answer = parts(text)
    assert answer == value
    assert text.startswith(prompt + found)
    if reasoning is not None:
        assert found == reasoning


def test_a_decimal_number_is_no_list_marker() -> None:
    assert IDENTIFY.identify("Add.\n1.5 and 2 make\nThe answer is 3.5").missing == ("reasoning",)
    prompt, reasoning, _ = parts("Add.\n1.5 and 2.\n1. Add them.\nThe answer is 3.5")
    assert (prompt, reasoning) == ("Add.\n1.5 and 2.\n", "1. Add them.\n")


def test_the_last_answer_counts_and_one_in_the_question_does_not() -> None:
    text = "The answer is what?\nThe answer is 5. No, wait.\nThe answer is 6"
    assert parts(text) == ("The answer is what?\n", "The answer is 5. No, wait.\n", "6")


def test_a_marker_in_the_question_is_not_that_of_the_answer() -> None:
    assert parts("What does #### mean?\nA heading.\nThe answer is 4")[2] == "4"
    assert IDENTIFY.identify("What is #### 5?\nA heading.").missing == ("answer",)


def test_a_surer_marker_goes_before_an_earlier_one() -> None:
    text = "Which is right?\n1. one\n2. two\nSolution: both.\nThe answer is 2.\n#### 2"
    assert parts(text)[1] == "Solution: both.\nThe answer is 2.\n"


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Nothing here", ("reasoning", "answer")),
        ("Why?\nBecause of that.", ("answer",)),
        ("Add them. #### 3", ("reasoning",)),
        ("Why?\n#### 3", ("reasoning",)),
        ("", ("reasoning", "answer")),
    ],
)
def test_a_text_without_a_marker_is_reported(text: str, missing: tuple[str, ...]) -> None:
    spans = IDENTIFY.identify(text)
    assert spans.missing == missing
    assert 0 <= spans.reasoning_start <= spans.answer_start <= spans.value_start <= len(text)
    offsets = torch.tensor([[[i, i + 1] for i in range(max(len(text), 1))]])
    with pytest.raises(ValueError, match=r"text 0 .* no marker of its"):
        IDENTIFY([text], offsets)
    ids, (again,) = IDENTIFY([text], offsets, on_missing="report")
    assert again == spans
    assert (ids >= 0).all()


def test_custom_triggers_replace_the_defaults() -> None:
    identify = SegmentIdentifier(
        reasoning_triggers=["<think>"], answer_triggers=["</think>", re.compile(r"=> ")]
    )
    text = "Why? Let's think. <think>so (because)</think> 7"
    spans = identify.identify(text)
    assert text[spans.reasoning_start : spans.answer_start] == "<think>so (because)"
    assert text[spans.value_start :] == "7"
    assert identify.identify("Why?\nSo.\n#### 2").missing == ("reasoning", "answer")
    # a string is no pattern
    literal = SegmentIdentifier(reasoning_triggers=["a.c"], answer_triggers=["####"])
    assert literal.identify("abc a.c x #### 1").reasoning_start == 4


def test_a_pattern_may_say_where_its_part_begins() -> None:
    identify = SegmentIdentifier(
        reasoning_triggers=[re.compile(r"\A.*?\|\|(?P<start>)")], answer_triggers=["####"]
    )
    assert identify.identify("Why?||<<1+1=2>> #### 2").reasoning_start == 6


@pytest.mark.parametrize("bad", [[], "####", ["####", ""]])
def test_triggers_that_cannot_mark_anything_are_refused(bad: list[str]) -> None:
    with pytest.raises(ValueError, match="answer_triggers"):
        SegmentIdentifier(answer_triggers=bad)


def test_a_known_prompt_needs_no_marker() -> None:
    text = "Add.\nOne and one.\n#### 2"
    assert parts(text, prompt="Add.\n") == ("Add.\n", "One and one.\n", "2")
    with pytest.raises(ValueError, match="does not begin"):
        IDENTIFY.identify(text, prompt="Subtract.")


def slow_segments(offsets: list[tuple[int, int]], reasoning: int, answer: int) -> list[int]:
    """The rule as it is written: the last character decides, no character means as before."""
    segments: list[int] = []
    for start, end in offsets:
        if end == start:
            segments.append(segments[-1] if segments else 0)
        else:
            last = end - 1
            segments.append(0 if last < reasoning else 1 if last < answer else 2)
    return segments


@st.composite
def tokenisations(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int, int]:
    """Offsets as tokenizers give them: blanks left out, characters in two tokens, empty marks."""
    length = draw(st.integers(1, 30))
    edges = sorted(draw(st.sets(st.integers(1, length), max_size=12)) | {length})
    offsets = [(0, 0)] if draw(st.booleans()) else []
    start = 0
    for end in edges:
        skip = draw(st.integers(0, end - start - 1))
        offsets += [(start + skip, end)] * draw(st.integers(1, 2))
        if draw(st.booleans()):
            offsets.append((end, end))
        start = end
    if draw(st.booleans()):
        offsets.append((0, 0))
    first, second = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
    return offsets, first, second


@given(tokenisations())
def test_token_segments_follow_the_last_character(
    sample: tuple[list[tuple[int, int]], int, int],
) -> None:
    offsets, reasoning, answer = sample
    segments = token_segments(np.array(offsets), reasoning, answer)
    assert segments.tolist() == slow_segments(offsets, reasoning, answer)
    assert (np.diff(segments) >= 0).all()
    assert set(segments.tolist()) <= {0, 1, 2}


@given(st.lists(tokenisations(), min_size=1, max_size=5), st.booleans())
def test_a_sample_has_the_same_segments_alone_and_in_a_batch(
    samples: list[tuple[list[tuple[int, int]], int, int]], left: bool
) -> None:
    width = max(len(offsets) for offsets, _, _ in samples)
    texts = ["x" * r + "R" + "x" * (a - r) + "A" + "x" * 30 for _, r, a in samples]
    identify = SegmentIdentifier(reasoning_triggers=["R"], answer_triggers=["A"])
    batch, mask = (
        torch.zeros(len(samples), width, 2, dtype=torch.long),
        torch.zeros(len(samples), width, dtype=torch.long),
    )
    for row, (offsets, _, _) in enumerate(samples):
        at = slice(width - len(offsets), width) if left else slice(0, len(offsets))
        batch[row, at] = torch.tensor(offsets)
        mask[row, at] = 1
    ids, spans = identify(texts, batch, mask)
    assert ((ids == -1) == (mask == 0)).all()
    for row, (offsets, reasoning, answer) in enumerate(samples):
        assert spans[row][:2] == (reasoning, answer + 1)
        expected = slow_segments(offsets, reasoning, answer + 1)
        assert ids[row][mask[row] == 1].tolist() == expected
        alone = identify([texts[row]], torch.tensor([offsets])).segment_ids
        assert alone[0].tolist() == expected


def test_shapes_that_do_not_fit_are_refused() -> None:
    text = "Why?\nSo.\n#### 2"
    offsets = torch.tensor([[[0, 4], [4, 9], [9, 15]]])
    with pytest.raises(ValueError, match=r"offsets must be \[2, T, 2\]"):
        IDENTIFY([text, text], offsets)
    with pytest.raises(ValueError, match="attention_mask"):
        IDENTIFY([text], offsets, torch.ones(1, 2))
    with pytest.raises(ValueError, match="2 prompts"):
        IDENTIFY([text], offsets, prompts=["a", "b"])
    with pytest.raises(ValueError, match="on_missing"):
        IDENTIFY([text], offsets, on_missing="guess")  # type: ignore[arg-type]


@pytest.mark.shared
@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_row_of_gsm8k_is_segmented_right_or_reported(
    shared: Path, split: str, count: int
) -> None:
    rows = (shared / "data/gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == count
    reported = 0
    for line in rows:
        row = json.loads(line)
        prompt = row["question"] + "\n"
        text = prompt + row["answer"]
        answer_start = len(prompt) + row["answer"].index("####")
        known = IDENTIFY.identify(text, prompt=prompt)
        assert known[:2] == (len(prompt), answer_start)
        assert known.missing == ()
        raw = IDENTIFY.identify(text)
        assert raw.answer_start == answer_start
        if raw.missing:
            assert raw.missing == ("reasoning",)
            reported += 1
        else:
            assert raw.reasoning_start == len(prompt)
    # questions that end in no question mark, before reasoning whose first line has no annotation
    assert reported < 0.01 * count
