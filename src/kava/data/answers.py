"""Answers: find the answer in a generated text, and tell whether it is the right one.

The gold answer decides how. A number is compared as a number, exactly, whatever its thousands
separators, currency, unit or trailing point; yes and no (true and false) by what a text says first;
the letter of a choice by the letter or the choice's own words; anything else as words, without
case, width and the punctuation around each word.

Where an answer is looked for:

- behind the last cue, on the first line that is not blank. What comes before the cue is
  reasoning, what comes on later lines is a next question that the model made up.
- in a text without a cue, a number is the text's last one (as the "flexible" extraction of
  lm-evaluation-harness, which favours a reasoning that breaks off at the right number); yes, no
  and a choice stand first or behind "the answer is" (`kava.data.closed_answers`); and words are
  the whole text, so that a reasoning in words that breaks off is never right by its last step.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from kava.data.closed_answers import polarity, read_letter, read_yes_no

# A number stands apart: not the "2" of "CO2", not a part of a fraction or a clock time ("1/2",
# "3:30"), not of "1.2.3" or "1e5". Possessive quantifiers keep it from giving back digits, and
# letters are ASCII ones, for "答案是18个" has no blanks around its number.
_NUMBER = re.compile(
    r"""
    (?<!\w) (?<!\d[.,:/]) (?<!\d[ ]/) (?<!\d/[ ]) (?<!\d[ ]/[ ])
    (?P<sign> (?<![\w)\]%]) - )?
    (?:[$€£¥]\ ?)?
    (?P<inner_sign> - )?
    (?P<digits> \d{1,3}+(?:,\d{3})++(?!\d) | \d++ | (?=\.\d) )
    (?P<fraction> \.\d++ )?+
    (?! [ ]?/[ ]?\d | [.,:]\d | e[+-]?\d )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_ONLY_NUMBER = re.compile(rf"[\s\#*=]*{_NUMBER.pattern}\s*+[%$€£¥]?[\s.*]*+", _NUMBER.flags)


class Judgement(NamedTuple):
    """An answer as it was found in a text, and whether it is right."""

    prediction: str
    correct: bool


def judge(text: str, gold: str, cue: str, choices: Sequence[str] = ()) -> Judgement:
    """Find the answer in a generated text and tell whether it is right.

    Args:
        text: everything the model generated.
        gold: the right answer; of a question with choices, its letter.
        cue: what stands before an answer, such as "#### ".
        choices: the texts of the choices, where the question has them.

    Example:
        >>> judge("Two and two.\\n#### 4.", "4", "#### ")
        Judgement(prediction='4.', correct=True)
        >>> judge("The answer is (B).", "B", "#### ", choices=["sand", "rain"])
        Judgement(prediction='B', correct=True)
    """
    found = extract_answer(text, cue, numeric=not choices and is_number(gold))
    read = None
    if choices:
        read = read_letter(found, choices)
    elif polarity(gold) is not None:
        read = read_yes_no(found)
    return Judgement(found if read is None else read, answers_match(found, gold, choices))


def extract_answer(text: str, cue: str, *, numeric: bool = False) -> str:
    """The answer that a generated text gives, as it is written there; "" where it gives none.

    Args:
        text: everything the model generated.
        cue: what stands before an answer, such as "#### "; blanks around it do not count.
        numeric: whether a number is asked for, which matters in a text without a cue.

    Example:
        >>> extract_answer("6 * 3 = 18\\n#### 18", "#### ")
        '18'
        >>> extract_answer("That makes 18 eggs.", "#### ", numeric=True)
        '18'
    """
    cue = cue.strip()
    if cue and cue in text:
        lines = text.rpartition(cue)[2].strip().splitlines()
        return lines[0].strip() if lines else ""
    if not numeric:
        return text.strip()
    numbers = list(_NUMBER.finditer(_plain(text)))
    return numbers[-1].group().strip() if numbers else ""


def is_number(answer: str) -> bool:
    """Whether an answer is a number and nothing else, and so is compared as one.

    Example:
        >>> [is_number(answer) for answer in ("$1,234.50", "18.", "1/2", "18 eggs")]
        [True, True, False, False]
    """
    return _ONLY_NUMBER.fullmatch(_plain(answer)) is not None


def normalize_answer(answer: str) -> str:
    """One spelling for all answers that mean the same.

    Args:
        answer: an answer without its cue.

    Returns:
        A number in plain digits, or the words in lower case, without punctuation around them.

    Example:
        >>> [normalize_answer(answer) for answer in ("$1,234.50", "18.0", " The  CAT. ")]
        ['1234.5', '18', 'the cat']
    """
    answer = _plain(answer)
    only = _ONLY_NUMBER.fullmatch(answer)
    if only is not None:
        return _canonical(only)
    words = (_strip_punctuation(word) for word in answer.casefold().split())
    return " ".join(word for word in words if word)


def answers_match(predicted: str, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether an answer is right.

    Args:
        predicted: the answer as `extract_answer` found it. For a numeric gold its first number
            counts, so that a unit or an explanation behind it does no harm.
        gold: the right answer; of a question with choices, its letter.
        choices: the texts of the choices, where the question has them.

    Example:
        >>> answers_match("$18.00 per day", "18"), answers_match("18 or 19", "19")
        (True, False)
        >>> answers_match("Yes, because it rains.", "yes")
        True
        >>> answers_match("rain", "B", choices=["sand", "rain"])
        True
    """
    if choices:
        return read_letter(predicted, choices) == gold.strip()
    if polarity(gold) is not None:
        return read_yes_no(predicted) == polarity(gold)
    if not is_number(gold):
        return normalize_answer(predicted) == normalize_answer(gold)
    found = _NUMBER.search(_plain(predicted))
    return found is not None and _canonical(found) == normalize_answer(gold)


def _plain(text: str) -> str:
    """The text with one form for each character, one minus sign and one stroke."""
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2044", "/")


def _canonical(number: re.Match[str]) -> str:
    """Plain digits without needless zeros; a text operation, so exact at any length."""
    whole = number["digits"].replace(",", "").lstrip("0") or "0"
    fraction = (number["fraction"] or "").rstrip("0").rstrip(".")
    size = whole + fraction
    negative = (number["sign"] is None) != (number["inner_sign"] is None)
    return f"-{size}" if negative and size != "0" else size


def _strip_punctuation(word: str) -> str:
    """The word without punctuation and symbols at its ends."""
    start, stop = 0, len(word)
    while start < stop and not _is_letter(word[start]):
        start += 1
    while stop > start and not _is_letter(word[stop - 1]):
        stop -= 1
    return word[start:stop]


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"
