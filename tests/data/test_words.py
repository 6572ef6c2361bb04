"""Answers in words: what makes no difference, and what does."""

from __future__ import annotations

import pytest

from kava.data.words import normal_words, same_words


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The  CAT. ", "the cat"),
        ("Yes, sir!", "yes sir"),
        ('"Paris"!', "paris"),
        ("'Paris'.", "paris"),
        ("**Paris**", "paris"),
        ("`bdca`", "bdca"),
        ("### Paris", "paris"),
        ("(New York)", "new york"),
        ("Paris (France)", "paris france"),
        ("what?!", "what"),
        ("\\text{Paris}", "paris"),
        # blanks beside operators, and of a sign
        ("- 5 degrees", "-5 degrees"),
        ("x = 3", "x=3"),
        ("1 / 2", "1/2"),
        ("a - b", "a-b"),
        ("50 %, or so", "50% or so"),
        ("( 1,2 )", "(1; 2)"),
        ("[0, 1)", "[0; 1)"),
        # what may carry meaning
        ("-x", "-x"),
        ("C++.", "c++"),
        ("A+", "a+"),
        ("F#", "f#"),
        ("x'", "x'"),
        ("dogs'", "dogs'"),
        ("n!", "n!"),
        ("(n-1)!", "(n-1)!"),
        ("10!", "10!"),
        ("and so on...", "and so on..."),
        ("1, 2", "1, 2"),
        ("(1,234)", "(1,234)"),
        ("{x}", "{x}"),
        ("(-x)", "(-x)"),
        (".NET", ".net"),
        ("$5 bill", "$5 bill"),
        ("__init__", "__init__"),
        ("2*3", "2*3"),
        ("5 mW", "5 mW"),
        ("5 MW", "5 MW"),
        ("5 Mb", "5 Mb"),
        ("5 KB", "5 kB"),
        ("5 MORE", "5 more"),
        ("?", "?"),
        ("!", "!"),
        ("**", "**"),
        ("", ""),
        ("\u200b", ""),
    ],
)
def test_the_one_spelling(text: str, normal: str) -> None:
    assert normal_words(text) == normal


def test_an_answer_that_says_nothing_is_like_no_other() -> None:
    assert not same_words("", "")
    assert not same_words("\u200b", " ")
    assert not same_words("?", "!")
