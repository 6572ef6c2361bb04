"""Splits that do not move, and the data's hash."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data import (
    Record,
    check_disjoint,
    data_hash,
    normalize_question,
    split_records,
)
from kava.data.splits import samples_per_question, spread_questions, unique_questions


def records_of(*questions: str) -> list[Record]:
    return [
        Record(id=f"r{i}", question=q, reasoning="1\n2", answer="2")
        for i, q in enumerate(questions)
    ]


RECORDS = records_of(*(f"Question {i}?" for i in range(400)))
PARTS = {"train": 0.7, "calibration": 0.1, "test": 0.2}


def places(splits: dict[str, list[Record]]) -> dict[str, str]:
    return {r.question: name for name, records in splits.items() for r in records}


@given(st.integers(0, 5), st.randoms(use_true_random=False), st.integers(1, 399))
def test_a_records_split_depends_on_nothing_else(
    seed: int, shuffle: random.Random, count: int
) -> None:
    whole = places(split_records(RECORDS, PARTS, seed=seed))
    shuffled = list(RECORDS)
    shuffle.shuffle(shuffled)
    some = places(split_records(shuffled[:count], PARTS, seed=seed))
    assert some == {r.question: whole[r.question] for r in shuffled[:count]}


def test_fractions_come_out_about_right_and_keep_the_order() -> None:
    splits = split_records(RECORDS, PARTS)
    assert sum(map(len, splits.values())) == 400
    for name, part in PARTS.items():
        assert abs(len(splits[name]) - 400 * part) < 4 * (400 * part * (1 - part)) ** 0.5
        assert [int(r.id[1:]) for r in splits[name]] == sorted(int(r.id[1:]) for r in splits[name])
    check_disjoint(**splits)
    assert places(splits) != places(split_records(RECORDS, PARTS, seed=1))
    assert len(split_records(RECORDS, {"a": 1.0, "b": 0.0})["a"]) == 400


def test_no_record_falls_off_the_last_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kava.data.splits._hash", lambda record, seed: 2**64 - 1)
    parts = {"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}
    assert 0.7 + 0.1 + 0.1 + 0.1 < 1
    assert len(split_records(RECORDS, parts)["d"]) == 400


def test_sizes_are_exact_and_independent_of_the_order() -> None:
    sizes = {"train": 300, "test": 50}
    splits = split_records(RECORDS, sizes)
    assert {name: len(part) for name, part in splits.items()} == sizes
    check_disjoint(**splits)
    assert places(split_records(RECORDS[::-1], sizes)) == places(splits)
    assert [r for r in RECORDS if r in splits["train"]] == splits["train"]


@pytest.mark.parametrize("parts", [PARTS, {"train": 5, "test": 3}])
def test_the_same_question_goes_to_one_split(parts: dict) -> None:
    for seed in range(20):
        records = records_of("A b?", "a  B?", "Ａ b?", "c", "d", "e", "f", "g")
        splits = split_records(records, parts, seed=seed)
        check_disjoint(**splits)
        assert sum(map(len, splits.values())) == 8


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "one or more sizes or fractions"),
        ({"train": -0.5, "test": 1.5}, "from 0 up"),
        ({"train": 0.5, "test": 0.4}, "sum to 0.9; they must sum to 1"),
        ({"train": 300, "test": 101}, "sum to 401, more than 400 records"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_records(RECORDS, parts)


def test_a_size_that_repeated_questions_forbid_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' of 1 cannot be filled exactly"):
        split_records(records_of("a", "A"), {"train": 1, "test": 1})


def test_the_hash_is_of_what_the_records_say() -> None:
    hash_ = data_hash(RECORDS)
    assert len(hash_) == 64
    assert int(hash_, 16)
    assert data_hash(RECORDS[::-1]) == hash_
    assert data_hash([replace(r, id="x" + r.id) for r in RECORDS]) == hash_
    changed = [
        {"question": "other"},
        {"reasoning": "other"},
        {"answer": "other"},
        {"student_question": "other"},
        {"step_separator": " "},
    ]
    hashes = {data_hash([replace(RECORDS[0], **change), *RECORDS[1:]]) for change in changed}
    hashes |= {data_hash(RECORDS[1:]), data_hash([*RECORDS, RECORDS[0]]), hash_}
    assert len(hashes) == 8
    # fields do not run into each other
    one, two = records_of("a", "a")
    assert data_hash([replace(one, question="ab", reasoning="c")]) != data_hash(
        [replace(two, question="a", reasoning="bc")]
    )


def test_the_hash_is_the_same_everywhere() -> None:
    record = Record(id="x", question="七?", reasoning="1\n2", answer="2")
    assert data_hash([record]) == "9bfd7934c04aca2e8cf83f502d8d1baa228f2bd0aa9d5e02dc058cec657e6eac"


def test_what_does_not_make_another_question() -> None:
    assert normalize_question(" Ｈow  many\n CLIPS? ") == "how many clips?"


def test_repeated_questions_are_counted_asked_once_and_spread() -> None:
    records = records_of("a", "b", "A ", "c", "a", "b")
    assert samples_per_question(records) == [3, 2, 1]
    assert [one.id for one in unique_questions(records)] == ["r0", "r1", "r3"]
    assert [one.id for one in spread_questions(records)] == ["r0", "r1", "r3", "r2", "r5", "r4"]
    assert spread_questions(RECORDS) == RECORDS == unique_questions(RECORDS)
