"""Answers as models write them, and what counts as right."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kava.data.answers import (
    answers_match,
    extract_answer,
    find_cue,
    is_number,
    judge,
    normalize_answer,
)

CUE = "#### "
RIGHT = [
    # a number, however it is spelled: tests/data/numbers/test_read.py has the others
    ("18", "18"),
    (" 18\n", "18"),
    ("5.0", "5"),
    ("1,234", "1234"),
    ("1234", "1,234"),
    ("$5.00", "5"),
    ("18", "#### 18"),
    ("9" * 6000, "9" * 6000),
    ("1e999999999", "1e999999999"),
    # what the gold answer does not say is not compared
    ("5€", "5"),
    ("50%", "50"),
    ("18 eggs", "18"),
    # a price is one without its sign too, and a percentage in words too
    ("5", "$5.00"),
    ("5 dollars", "$5"),
    ("50 percent", "50%"),
    # words
    ("Yes.", "yes"),
    ("  the  CAT ", "The cat"),
    ('"Paris"!', "paris"),
    ("(B)", "b"),
    ("don't", "Don't"),
    ("1/2", "1/2"),
    ("½", "1/2"),
    ("\\frac{1}{2}", "1/2"),
    ("-½", "\u22121/2"),
    ("1½", "1 1/2"),
    ("18 eggs", "18 Eggs"),
    ("\u20135 degrees", "-5 degrees"),
    ("3:30", "3:30"),
    ("straße", "STRASSE"),
    ("①", "①"),
    ("?", "?"),
]
WRONG = [
    ("", "18"),
    ("", "yes"),
    ("", ""),
    ("eighteen", "18"),
    ("1", "18"),
    ("181", "18"),
    ("1.8", "18"),
    ("18", "1.8"),
    ("3", "-3"),
    ("-3", "3"),
    ("0.33", "0.333"),
    # another unit
    ("50", "50%"),
    ("0.5", "50%"),
    ("50%", "0.5"),
    ("$50", "50%"),
    ("5 €", "$5"),
    ("5 cents", "$5"),
    ("5%", "$5"),
    # a sign, an operator, a bracket, a unit: all that cleaning must not take away
    ("1/2", "-1/2"),
    ("-1/2", "1/2"),
    ("x", "-x"),
    ("5 degrees", "-5 degrees"),
    ("102", "10²"),
    ("11/2", "1½"),
    ("10_2", "102"),
    ("1", "①"),
    ("C", "C++"),
    ("A", "A+"),
    ("F", "F#"),
    ("n", "n!"),
    ("5", "5!"),
    ("x", "x'"),
    ("1, 2", "(1, 2)"),
    ("[1, 2]", "(1, 2)"),
    ("(1, 2]", "[1, 2]"),
    ("1 2", "1, 2"),
    ("12", "1, 2"),
    ("(1,234)", "(1, 234)"),
    ("{1, 2}", "(1, 2)"),
    ("x > 5", "x < 5"),
    ("x >= 5", "x > 5"),
    ("5", "≠5"),
    ("5", "±5"),
    ("5", "> 5"),
    ("18", "18-20"),
    ("5 MW", "5 mW"),
    ("5 Mb", "5 MB"),
    ("NET", ".NET"),
    ("1, 2", "1, 2, ..."),
    ("true", "!true"),
    ("!", "?"),
    ("...", "?"),
    ("V", "IV"),
    ("1/2", "1"),
    ("12", "1/2"),
    ("2", "½"),
    ("2/4", "1/2"),
    # words
    ("yes", "no"),
    ("yes no", "yes"),
    ("dont", "don't"),
    ("a b", "ab"),
    ("bdca", "abcd"),
]


@pytest.mark.parametrize(("predicted", "gold"), RIGHT)
def test_right(predicted: str, gold: str) -> None:
    assert answers_match(predicted, gold)
    assert judge(f"so\n{CUE}{predicted.strip()}", gold, CUE).correct


@pytest.mark.parametrize(("predicted", "gold"), WRONG)
def test_wrong(predicted: str, gold: str) -> None:
    assert not answers_match(predicted, gold)
    assert not judge(f"so\n{CUE}{predicted}", gold, CUE).correct


@pytest.mark.parametrize(
    ("text", "cue", "numeric", "answer"),
    [
        ("1 + 1 = 2\n#### 2", "#### ", True, "2"),
        ("####2", "#### ", True, "2"),
        ("#### \n\n2", "#### ", True, "2"),
        ("dbca acbd Answer bdca", "Answer ", False, "bdca"),
        ("it is 7\n####", "#### ", True, ""),
        # the model runs on: the first cue is the answer's, and its line ends it
        ("#### 18 eggs\nQuestion: what is 7 + 7?", "#### ", True, "18 eggs"),
        ("#### 18\n\nQuestion: next\n#### 5", "#### ", True, "18"),
        ("9 * 2\n#### 18\nTom has 5.\n#### 5", "#### ", True, "18"),
        ("#### 3\nno, wait\n#### 2", "#### ", True, "3"),
        # a longer word is no cue
        ("Answers differ. Answer bdca", "Answer ", False, "bdca"),
        ("Answers differ", "Answer ", False, "Answers differ"),
        ("Answerbdca", "Answer", False, "bdca"),
        # no cue
        ("so 9 * 2 = 18.", "#### ", True, "18"),
        ("that is -$1,234.50, then", "#### ", True, "-$1,234.50"),
        ("It is 5.\nThat makes 18 eggs!\n", "#### ", True, "18"),
        ("eighteen", "#### ", True, ""),
        ("a half, 1/2", "#### ", True, ""),
        ("from 18 to 20", "#### ", True, ""),
        ("so 9 * 2", "#### ", True, ""),
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


def test_an_answer_of_several_lines_is_read_on_as_many() -> None:
    gold = "Wash it.\n\n Dry it."
    assert judge(f"#### {gold}", gold, CUE) == ("Wash it.\nDry it.", True)
    assert judge("#### wash it\ndry it\n\nWhat next?", gold, CUE).correct
    assert not judge("#### Wash it.", gold, CUE).correct
    assert not judge("#### Dry it.\nWash it.", gold, CUE).correct
    assert not judge("#### Wash it.", "Wash it.\nDry it.", CUE).correct


def test_a_text_has_one_first_cue() -> None:
    assert find_cue("a #### b #### c", CUE) == 6
    assert find_cue("a", CUE) is None
    assert find_cue("a", " ") is None


def test_reasoning_in_words_that_breaks_off_is_not_right_by_its_last_step() -> None:
    broken_off = extract_answer("dbca acbd bdca", "Answer ")
    assert not answers_match(broken_off, "bdca")


@pytest.mark.parametrize("answer", ["18", "-1,234.5", "$5", "50%", "#### 18.", "1.5 million"])
def test_a_number(answer: str) -> None:
    assert is_number(answer)


@pytest.mark.parametrize(
    "answer",
    ["", "1/2", "18 eggs", "3:30", "1,23", "bdca", "-", "1 2", "5!", "x = 5", "> 5", "1\n2", "①"],
)
def test_not_a_number(answer: str) -> None:
    assert not is_number(answer)


@pytest.mark.parametrize(("predicted", "gold"), RIGHT)
def test_a_normal_form_is_its_own_normal_form(predicted: str, gold: str) -> None:
    for answer in (predicted, gold):
        once = normalize_answer(answer)
        assert normalize_answer(once) == once


TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("0123456789.,:;!?-+*/^=<>()[]{}$%#'\"\\_|~ \n½²①−–xyes no"),
    ),
    max_size=30,
)


@given(TEXTS)
@example("a \\ \u20280")
@example("a \\\r0")
@example("a \\\x850")
@settings(max_examples=200)
def test_every_answer_that_says_something_judges_itself_right(gold: str) -> None:
    if normalize_answer(gold):
        assert judge(f"2 + 2 = 4\n{CUE}{gold.strip()}", gold, CUE).correct
        assert judge(f"{CUE}{gold.strip()}\n\nWhat next?\n{CUE}5", gold, CUE).correct
    else:
        assert not judge(f"{CUE}{gold}", gold, CUE).correct


@given(TEXTS, st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1, max_size=8))
@settings(max_examples=200)
def test_a_text_without_the_golds_letters_is_never_right(text: str, gold: str) -> None:
    shared = set(normalize_answer(text)) & set(normalize_answer(gold))
    if not shared and gold.casefold() not in ("yes", "no", "true", "false"):
        assert not judge(f"{CUE}{text}", gold, CUE).correct


@given(st.integers(1, 10**9), st.lists(st.integers(0, 10**9), max_size=4), TEXTS)
def test_a_text_without_the_golds_number_is_never_right(
    gold: int, others: list[int], text: str
) -> None:
    words = re.sub(r"[^\W_]", "", text)
    said = f" {words} eggs, ".join(str(other) for other in others if other != gold)
    assert not judge(f"{CUE}{said}", str(gold), CUE).correct
    assert not judge(said, str(gold), CUE).correct


@given(st.from_regex(r"-?[1-9][0-9]{0,8}(\.[0-9]{1,3}[1-9])?", fullmatch=True), st.data())
def test_another_sign_or_digit_makes_a_number_wrong(gold: str, data: st.DataObject) -> None:
    turned = gold[1:] if gold.startswith("-") else f"-{gold}"
    assert not judge(f"{CUE}{turned}", gold, CUE).correct
    places = [place for place, digit in enumerate(gold) if digit.isdigit()]
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != gold[place]]))
    assert not judge(f"{CUE}{gold[:place]}{digit}{gold[place + 1 :]}", gold, CUE).correct
