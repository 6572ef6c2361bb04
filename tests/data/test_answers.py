"""Answers as models write them, and what counts as right."""

from __future__ import annotations

import doctest

import pytest

import kava.data.answers
from kava.data.answers import answers_match, extract_answer, is_number, normalize_answer

RIGHT = [
    # a number, however it is spelled
    ("18", "18"),
    ("18.", "18"),
    (" 18\n", "18"),
    ("**18**", "18"),
    ("007", "7"),
    ("5.0", "5"),
    ("5", "5.00"),
    (".5", "0.5"),
    ("1,234", "1234"),
    ("1234", "1,234"),
    ("12,345,678.90", "12345678.9"),
    ("$5.00", "5"),
    ("$ 5", "$5.00"),
    ("5€", "5"),
    ("50%", "50"),
    ("#### 18", "18"),
    ("18", "#### 18"),
    ("１８", "18"),
    ("9" * 6000, "9" * 6000),
    # a sign
    ("-3", "-3"),
    ("\u22123", "-3"),
    ("-$3", "-3"),
    ("$-3", "-3"),
    ("x = -3", "-3"),
    ("-0.0", "0"),
    # a unit, or more, behind it
    ("18 eggs", "18"),
    ("5km", "5"),
    ("60 km/h", "60"),
    ("18 dollars, for 9 * 2 = 18", "18"),
    ("Step 3: 18", "3"),
    ("Answer:18", "18"),
    ("答案是18个", "18"),
    ("\\boxed{18}", "18"),
    # words
    ("Yes.", "yes"),
    ("  the  CAT ", "The cat"),
    ('"Paris"!', "paris"),
    ("(B)", "b"),
    ("don't", "Don't"),
    ("1/2", "1/2"),
    ("½", "1/2"),
    ("18 eggs", "18 Eggs"),
    ("3:30", "3:30"),
    ("straße", "STRASSE"),
]

WRONG = [
    ("", "18"),
    ("", "yes"),
    ("eighteen", "18"),
    ("18 or 19", "19"),
    ("1", "18"),
    ("181", "18"),
    ("1.8", "18"),
    ("18", "1.8"),
    ("1,23", "1"),
    ("1,23", "123"),
    ("1234,567", "1234"),
    ("3", "-3"),
    ("-3", "3"),
    ("5-3", "-3"),
    ("x-3", "-3"),
    # parts of something else
    ("1/2", "1"),
    ("1/2", "2"),
    ("12/3", "1"),
    ("18 / 2", "2"),
    ("3:30", "3"),
    ("3:30", "30"),
    ("1.2.3", "1.2"),
    ("CO2", "2"),
    ("1e999999999", "1"),
    # words
    ("yes", "no"),
    ("yes no", "yes"),
    ("12", "1/2"),
    ("2", "½"),
    ("dont", "don't"),
    ("a b", "ab"),
]


@pytest.mark.parametrize(("predicted", "gold"), RIGHT)
def test_right(predicted: str, gold: str) -> None:
    assert answers_match(predicted, gold)


@pytest.mark.parametrize(("predicted", "gold"), WRONG)
def test_wrong(predicted: str, gold: str) -> None:
    assert not answers_match(predicted, gold)


@pytest.mark.parametrize(
    ("text", "cue", "numeric", "answer"),
    [
        ("1 + 1 = 2\n#### 2", "#### ", True, "2"),
        ("#### 3\nno, wait\n#### 2", "#### ", True, "2"),
        ("####2", "#### ", True, "2"),
        ("#### \n\n2", "#### ", True, "2"),
        ("#### 18 eggs\nQuestion: what is 7 + 7?", "#### ", True, "18 eggs"),
        ("dbca acbd Answer bdca", "Answer ", False, "bdca"),
        ("it is 7\n####", "#### ", True, ""),
        # no cue
        ("so 9 * 2 = 18.", "#### ", True, "18"),
        ("that is -$1,234.50, then", "#### ", True, "-$1,234.50"),
        ("eighteen", "#### ", True, ""),
        ("a half, 1/2", "#### ", True, ""),
        ("  yes\n", "#### ", False, "yes"),
        ("dbca acbd", "Answer ", False, "dbca acbd"),
        ("", "#### ", True, ""),
        # a template without a cue
        ("so 9 * 2 = 18", "", True, "18"),
        ("yes", " ", False, "yes"),
    ],
)
def test_where_an_answer_is_found(text: str, cue: str, numeric: bool, answer: str) -> None:
    assert extract_answer(text, cue, numeric=numeric) == answer


def test_reasoning_in_words_that_breaks_off_is_not_right_by_its_last_step() -> None:
    broken_off = extract_answer("dbca acbd bdca", "Answer ")
    assert not answers_match(broken_off, "bdca")


@pytest.mark.parametrize("answer", ["18", "-1,234.5", "$5", "50%", "#### 18."])
def test_a_number(answer: str) -> None:
    assert is_number(answer)


@pytest.mark.parametrize("answer", ["", "1/2", "18 eggs", "3:30", "1,23", "bdca", "-", "1 2"])
def test_not_a_number(answer: str) -> None:
    assert not is_number(answer)


@pytest.mark.parametrize(("predicted", "gold"), RIGHT)
def test_a_normal_form_is_its_own_normal_form(predicted: str, gold: str) -> None:
    for answer in (predicted, gold):
        once = normalize_answer(answer)
        assert normalize_answer(once) == once


def test_the_examples_in_the_documentation() -> None:
    assert doctest.testmod(kava.data.answers).failed == 0
