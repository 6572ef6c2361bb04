"""Answers: find the answer in a generated text, and tell whether it is the right one.

The gold answer decides how. A number is compared as a number, exactly, whatever its spelling
(`kava.data.numbers`); yes and no (true and false) by what a text says first, and the letter of a
choice by the letter or the choice's own words (`kava.data.closed_answers`); anything else as words
(`kava.data.words`).

Where an answer is looked for:

- behind the first cue, on the first line that is not blank; where the gold answer has several
  lines, on as many. A student is trained to write its cue once, and to stop behind the answer:
  what comes later is a next question that the model made up, with a cue of its own.
- in a text without a cue, a number is the text's last one (as the "flexible" extraction of
  lm-evaluation-harness, which favours a reasoning that breaks off at the right number); yes, no
  and a choice stand first or behind "the answer is"; and words are the whole text, so that a
  reasoning in words that breaks off is never right by its last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kava.data.closed_answers import polarity, read_letter, read_yes_no
from kava.data.numbers import last_number, read_number, whole_number
from kava.data.words import normal_words, same_words


class Judgement(NamedTuple):
    """An answer as it was found in a text, and whether it is right."""

    prediction: str
    correct: bool


def judge(text: str, gold: str, cue: str, choices: Sequence[str] = ()) -> Judgement:
    """Find the answer in a generated text and tell whether it is right.

    Args:
        text: everything the model generated, up to a next question.
        gold: the right answer; of a question with choices, its letter.
        cue: what stands before an answer, such as "#### ".
        choices: the texts of the choices, where the question has them.

    Example:
        >>> judge("Two and two.\\n#### 4.", "4", "#### ")
        Judgement(prediction='4.', correct=True)
        >>> judge("The answer is (B).", "B", "#### ", choices=["sand", "rain"])
        Judgement(prediction='B', correct=True)
        >>> judge("#### 1/2", "-1/2", "#### ").correct
        False
    """
    numeric = not choices and is_number(gold)
    found = extract_answer(text, cue, numeric=numeric, num_lines=len(_lines(gold)))
    read = None
    if choices:
        read = read_letter(found, choices)
    elif not numeric and polarity(gold) is not None:
        read = read_yes_no(found)
    return Judgement(found if read is None else read, answers_match(found, gold, choices))


def extract_answer(text: str, cue: str, *, numeric: bool = False, num_lines: int = 1) -> str:
    """The answer that a generated text gives, as it is written there; "" where it gives none.

    Args:
        text: everything the model generated.
        cue: what stands before an answer, such as "#### "; blanks around it do not count.
        numeric: whether a number is asked for, which matters in a text without a cue.
        num_lines: lines of an answer behind a cue; blank ones do not count.

    Example:
        >>> extract_answer("6 * 3 = 18\\n#### 18\\n\\nHow many?\\n#### 5", "#### ")
        '18'
        >>> extract_answer("That makes 18 eggs.", "#### ", numeric=True)
        '18'
    """
    start = find_cue(text, cue)
    if start is not None:
        return "\n".join(_lines(text[start:])[:num_lines])
    if not numeric:
        return text.strip()
    found = last_number(text)
    return "" if found is None else found.text


def find_cue(text: str, cue: str) -> int | None:
    """Where the first cue of a text ends; None where it has none.

    Args:
        text: a generated text, or a written reasoning.
        cue: of a cue that ends with a blank, as "Answer ", a longer word ("Answers") is none.

    Example:
        >>> find_cue("Answers differ. Answer bdca", "Answer ")
        22
    """
    mark = cue.strip()
    start = text.find(mark) if mark else -1
    whole = mark[-1:].isalnum() and cue[-1:].isspace()
    while start >= 0:
        end = start + len(mark)
        if not (whole and text[end : end + 1].isalnum()):
            return end
        start = text.find(mark, end)
    return None


def is_number(answer: str) -> bool:
    """Whether an answer is a number and nothing else, and so is compared as one.

    Example:
        >>> [is_number(answer) for answer in ("$1,234.50", "18.", "1/2", "18 eggs")]
        [True, True, False, False]
    """
    return whole_number(answer) is not None


def normalize_answer(answer: str) -> str:
    """One spelling for all answers that mean the same.

    Args:
        answer: an answer without its cue.

    Returns:
        A number in plain digits, with its currency or percent sign; or the words, without case and
        the punctuation around them.

    Example:
        >>> [normalize_answer(answer) for answer in ("$1,234.50", "18.0", " The  CAT. ")]
        ['$1234.5', '18', 'the cat']
    """
    found = whole_number(answer)
    if found is None:
        return normal_words(answer)
    return f"{found.number}%" if found.unit == "%" else f"{found.unit}{found.number}"


def answers_match(predicted: str, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether an answer is right.

    Args:
        predicted: the answer as `extract_answer` found it. For a numeric gold its number counts,
            so that a unit or an explanation behind it does no harm; where the gold answer names a
            percent sign or a currency, so must the answer, or at least name no other currency.
        gold: the right answer; of a question with choices, its letter.
        choices: the texts of the choices, where the question has them.

    Example:
        >>> answers_match("$18.00 per day", "18"), answers_match("18 or 19", "18")
        (True, False)
        >>> answers_match("Yes, because it rains.", "yes")
        True
        >>> answers_match("rain", "B", choices=["sand", "rain"])
        True
    """
    if choices:
        return read_letter(predicted, choices) == gold.strip()
    wanted = whole_number(gold)
    if wanted is None:
        if (said := polarity(gold)) is not None:
            return read_yes_no(predicted) == said
        return same_words(predicted, gold)
    found = read_number(predicted)
    if found is None or found.number != wanted.number:
        return False
    return wanted.unit in ("", found.unit) or (wanted.unit != "%" and found.unit == "")


def _lines(text: str) -> list[str]:
    """The lines of a text that are not blank."""
    return [line.strip() for line in text.splitlines() if line.strip()]
