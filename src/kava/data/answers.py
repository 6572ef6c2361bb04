"""Find the answer in a generated text, and decide whether it is correct.

The gold answer determines the comparison. Numbers are compared by exact value, in any notation
(`kava.data.numbers`); yes and no (true and false) by what the text says first, and the letter of a
choice by the letter or the choice's text (`kava.data.closed_answers`); anything else as words
(`kava.data.words`). A task whose answers are of another kind has a `Judge` of its own, which its
records name as `meta["judge"]`.

Where the answer is searched:

- after the first cue, on the first line that is not blank; if the gold answer has several lines, on
  the same number of lines. A student is trained to write its cue once and to stop after the answer:
  later text is a next question that the model invented, with its own cue.
- in a text without a cue, a number is the last number of the text (as in the "flexible" extraction
  of lm-evaluation-harness, which favours reasoning that stops at the right number); yes, no and a
  choice are at the beginning or after "the answer is"; words are the whole text, so that unfinished
  reasoning in words is never correct by its last step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kava.data.closed_answers import polarity, read_letter, read_yes_no
from kava.data.numbers import last_number, read_number, whole_number
from kava.data.words import normal_words, same_words


class JudgedAnswer(NamedTuple):
    """An answer found in a text, and whether it is correct."""

    prediction: str
    correct: bool


class Judge(NamedTuple):
    """A task's own way to judge answers.

    Attributes:
        find: the answer in a text without a cue.
        same: whether an answer, as it was found, means the same as the gold answer.
    """

    find: Callable[[str], str]
    same: Callable[[str, str], bool]


def judge(
    text: str, gold: str, cue: str, choices: Sequence[str] = (), own: Judge | None = None
) -> JudgedAnswer:
    """Find the answer in a generated text and decide whether it is correct.

    Args:
        text: everything the model generated, up to a next question.
        gold: the right answer; of a question with choices, its letter.
        cue: the text before an answer, such as "#### ".
        choices: the texts of the choices, where the question has them.
        own: the task's own judge, where it has one.

    Example:
        >>> judge("Two and two.\\n#### 4.", "4", "#### ")
        JudgedAnswer(prediction='4.', correct=True)
        >>> judge("The answer is (B).", "B", "#### ", choices=["sand", "rain"])
        JudgedAnswer(prediction='B', correct=True)
        >>> judge("#### 1/2", "-1/2", "#### ").correct
        False
    """
    gold = gold.strip()
    if own is not None:
        found = extract_answer(text, cue, num_lines=len(_lines(gold)))
        found = own.find(text) if find_cue(text, cue) is None else found
        return JudgedAnswer(found, own.same(found, gold))
    numeric = not choices and is_number(gold)
    found = extract_answer(text, cue, numeric=numeric, num_lines=len(_lines(gold)))
    read = None
    if choices:
        read = read_letter(found, choices)
    elif not numeric and polarity(gold) is not None:
        read = read_yes_no(found)
    return JudgedAnswer(found if read is None else read, answers_match(found, gold, choices))


def extract_answer(text: str, cue: str, *, numeric: bool = False, num_lines: int = 1) -> str:
    """Extract the answer from a generated text, as written there; "" if there is none.

    Args:
        text: everything the model generated.
        cue: the text before an answer, such as "#### "; blanks around it are ignored.
        numeric: whether the answer is a number, which matters in a text without a cue.
        num_lines: number of answer lines after a cue; blank lines do not count.

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
    """Index at which the first cue of a text ends; None if there is no cue.

    Args:
        text: a generated text or a chain of thought.
        cue: a cue with a final blank, such as "Answer ", does not match a longer word ("Answers").

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
    """Whether an answer is only a number, and so is compared by value.

    Example:
        >>> [is_number(answer) for answer in ("$1,234.50", "18.", "1/2", "18 eggs")]
        [True, True, False, False]
    """
    return whole_number(answer) is not None


def normalize_answer(answer: str) -> str:
    """Normalise an answer, so that answers with the same meaning get one spelling.

    Args:
        answer: an answer without its cue.

    Returns:
        A number in plain digits, with its currency or percent sign; or the words in lower case
        without the punctuation around them.

    Example:
        >>> [normalize_answer(answer) for answer in ("$1,234.50", "18.0", " The  CAT. ")]
        ['$1234.5', '18', 'the cat']
    """
    found = whole_number(answer)
    if found is None:
        return normal_words(answer)
    return f"{found.number}%" if found.unit == "%" else f"{found.unit}{found.number}"


def answers_match(predicted: str, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether an answer is correct.

    Args:
        predicted: the answer found by `extract_answer`. For a numeric gold answer only its number
            counts, so a unit or an explanation after it is allowed; if the gold answer has a
            percent sign or a currency, the answer must have the same, or at least no other
            currency.
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
