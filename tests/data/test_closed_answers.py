"""Yes, no and choices as models write them, and what is no answer."""

from __future__ import annotations

import pytest

from kava.data.answers import answers_match, judge
from kava.data.closed_answers import polarity, read_letter, read_yes_no

CHOICES = ("sand", "rain", "a warm, dry wind", "the sun")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes", "yes"),
        ("No", "no"),
        ("Yes.", "yes"),
        ("True", "yes"),
        ("false.", "no"),
        ("**No**", "no"),
        ("Yes, because penguins are birds.", "yes"),
        ("No, he did not.", "no"),
        ("Yes it is.", "yes"),
        ("no - they never met", "no"),
        ("No because he died in 1821", "no"),
        ("Penguins are birds. So the answer is yes.", "yes"),
        ("The answer to the question is: No", "no"),
        ("Answer: true", "yes"),
        ("\\boxed{no}", "no"),
        ("The answer is yes. No, wait, the answer is no.", "no"),
        ("Yes\n\nQuestion: Is it no?", "yes"),
        ("The answer is yes.\n\nQuestion: Is it? The answer is no.", "yes"),
        ("**Answer:** no", "no"),
        ("The answer is **no**.", "no"),
        ("(yes)", "yes"),
        ("'true'", "yes"),
        ("\\text{no}", "no"),
        # no answers
        ("", None),
        ("No one knows.", None),
        ("No penguin has ever seen a yes.", None),
        ("yes and no", None),
        ("Yes/No", None),
        ("yes no", None),
        ("True or false?", None),
        ("No. 5 was alive", None),
        ("nothing", None),
        ("Yesterday", None),
        ("It depends: yes for some.", None),
        ("The answer is not yes", None),
        ("The answer isn't yes", None),
        ("yes, and no", None),
        ("Yes (or no)", None),
        ("No, but yes", None),
        ("no\u2013one knows", None),
        ("no-one", None),
        ("!true", None),
        ("\u00actrue", None),
        ("yes?", "yes"),
        ("Once upon a time there was a little boy. Yes, he said.", None),
    ],
)
def test_yes_or_no(text: str, said: str | None) -> None:
    assert read_yes_no(text) == said
    for gold in ("yes", "no"):
        assert answers_match(text, gold) == (said == gold)
    assert answers_match(text, "True") == (said == "yes")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("(b) rain", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("B. rain", "B"),
        ("B: rain", "B"),
        ("**B.** rain", "B"),
        ("B. Because rain is water.", "B"),
        ("B, because rain is water.", "B"),
        ("the answer is B", "B"),
        ("The answer is (B).", "B"),
        ("So the correct answer is: B. rain", "B"),
        ("Answer: option B", "B"),
        ("The answer is B, not C.", "B"),
        ("\\boxed{B}", "B"),
        ("rain", "B"),
        ("Rain.", "B"),
        ("The answer is rain.", "B"),
        ("rain. It falls from clouds.", "B"),
        ("A warm, dry wind.", "C"),
        ("the answer is the sun", "D"),
        ("B\n\nQuestion: What is A?", "B"),
        ("A. sand\nThe answer is B.", "B"),
        ("B.\n\nQuestion: Which?\nA. one\nB. two", "B"),
        ("The answer is B.\nQuestion: Which? The answer is A.", "B"),
        ("**Answer:** B", "B"),
        ("The answer is **(B)**.", "B"),
        ("$\\boxed{B}$", "B"),
        # no answers
        ("", None),
        ("E", None),
        ("A dog ran.", None),
        ("A warm wind.", None),
        ("I think that", None),
        ("The answer is a dog", None),
        ("A. sand B. rain C. a warm, dry wind", None),
        ("A. sand\nB. rain", None),
        ("(A) (B)", None),
        ("A or B", None),
        ("Both A and B", None),
        ("The answer is not B", None),
        ("rainy days", None),
        ("brain", None),
        ("it could be rain", None),
        ("Because", None),
        ("C3PO", None),
        ("A.D. 79", None),
        ("(A) and B", None),
        ("A) or B", None),
        ("B, C", None),
        ("B & C", None),
        ("\u2260B", None),
        ("-B", None),
        ("\u00acB", None),
        ("B+", None),
    ],
)
def test_the_letter_of_a_choice(text: str, letter: str | None) -> None:
    assert read_letter(text, CHOICES) == letter
    for gold in "ABCD":
        assert answers_match(text, gold, CHOICES) == (letter == gold)


def test_a_choice_that_two_letters_have_is_none() -> None:
    assert read_letter("sand", ["sand", "Sand."]) is None
    assert read_letter("3", ["1", "3"]) == "B"


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("102", ["10²", "5"], None),
        ("10^2", ["10²", "102"], "A"),
        ("x", ["-x", "2x"], None),
        ("-x", ["-x", "x"], "A"),
        ("23", ["2*3", "4"], None),
        ("$5", ["5", "$5"], "B"),
        ("1/2", ["½", "2"], "A"),
        ("C", ["C++", "Java"], None),
        ("C++", ["C++", "C"], "A"),
        ("11/2", ["1½", "3"], None),
    ],
)
def test_a_choice_in_full_keeps_its_signs(
    text: str, choices: list[str], letter: str | None
) -> None:
    assert read_letter(text, choices) == letter


def test_an_answer_is_what_stands_behind_the_cue() -> None:
    assert judge("Yes, I think.\n#### no", "no", "#### ") == ("no", True)
    assert judge("#### No, he did not.\nYes", "no", "#### ") == ("no", True)
    assert judge("A. is tempting\n#### B. rain\nC", "B", "#### ", CHOICES) == ("B", True)
    assert judge("#### perhaps", "no", "#### ") == ("perhaps", False)
    assert judge("it is 3, so 18", "18", "#### ") == ("18", True)
    assert judge("#### 18 eggs", "18", "#### ") == ("18 eggs", True)
    # choices that are numbers are choices still
    assert judge("#### 3", "B", "#### ", ["1", "3"]) == ("B", True)


def test_other_words_are_not_yes_or_no() -> None:
    assert polarity("TRUE.") == "yes"
    assert polarity("yes 1") is None
    assert polarity("") is None
