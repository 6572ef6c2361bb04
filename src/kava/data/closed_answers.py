"""Read answers from a closed set: yes or no, and the letter of a choice.

The position of an answer is strict, because reasoning has many words that look like answers: it
must be at the beginning, after the cue, or after "the answer is". "No one knows", "yes and no", the
article "A" and a list of all choices are not answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kava.data.plain import plain
from kava.data.words import normal_words, same_words

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SAID = re.compile(
    r"""\b(?:answer|choice|option)\b\*{0,3}(?:\ to\ (?:the|this)\ question)?
    \s*+(?:(?<=\s)(?:is|would\ be|must\ be)\b|:|=)[\s:*]*+
    (?:(?:the\s++)?(?:answer|option|choice|letter)\b\s*+)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GOES_ON = r"because|since|as|not|which|it|its|he|she|they|this|that|these|there|the|you|we|i|for"
_YES_NO = re.compile(
    rf"(yes|no|true|false)\b(?!\.\s*\d)"
    rf"(?!\W*+(?:(?:and|or|but|then|also|rather)\W++)*+(?:yes|no|true|false)\b)"
    rf"(?=\s*$|\s*[.,;:!)\n\u2014]|\s+-|\s+(?:{_GOES_ON})\b)",
    re.IGNORECASE,
)
_POLARITY = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_BEFORE, _BEHIND = r"""[\s"'`#_*(\[{.:,;=]*+""", r"""[\s"'`_*)\]}.:,;!]*+"""
_JOINED = r"[\s).:*_\]]*+(?:[,;&/+]\s*+(?:(?:and|or|nor)\b\W*+)?|(?:and|or|nor)\b\W*+)"


def polarity(answer: str) -> str | None:
    """Return "yes" or "no" if an answer is only that (or true, false), else None.

    Example:
        >>> [polarity(answer) for answer in ("Yes.", "False", "no one", "!true")]
        ['yes', 'no', None, None]
    """
    return _POLARITY.get(normal_words(answer))


def said(text: str) -> str:
    """The rest of the line after "the answer is"; the whole text without such a line.

    If a line says it twice, the last one counts, since a model may correct itself; later lines
    belong to a next question.

    Example:
        >>> said("It rains. So the answer is (B).")
        '(B).'
    """
    first = _SAID.search(text)
    if first is None:
        return text
    line = text[: first.end()] + text[first.end() :].partition("\n")[0]
    return line[list(_SAID.finditer(line, first.start()))[-1].end() :]


def read_yes_no(text: str) -> str | None:
    """Return "yes" or "no", as the text answers; None if it does neither.

    Example:
        >>> read_yes_no("Yes, because it rains."), read_yes_no("So the answer is false")
        ('yes', 'no')
        >>> read_yes_no("No one knows.") is None
        True
    """
    alone = polarity(text)
    if alone is not None:
        return alone
    found = _YES_NO.match(said(plain(text)).replace("*", "").lstrip(" \t\n\"'`_#("))
    return None if found is None else _POLARITY[found[1].lower()]


def read_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text gives, by letter or by its text; None if none.

    Args:
        text: a generated text, or the part after its cue.
        choices: the texts of the choices, in the order of their letters.

    Example:
        >>> choices = ["sand", "rain"]
        >>> [read_letter(text, choices) for text in ("(B)", "The answer is B.", "Rain.", "A dog")]
        ['B', 'B', 'B', None]
    """
    part = said(plain(text)).strip()
    letters = LETTERS[: len(choices)]
    lines = part.splitlines()
    line = lines[0] if lines else ""
    alone = re.fullmatch(rf"{_BEFORE}([{letters}{letters.lower()}]){_BEHIND}", line)
    if alone is not None:
        return None if _lists_choices(part, alone.end(1), letters) else alone[1].upper()
    led = re.match(
        rf"[\"'`*_]*+(?:\(([{letters}{letters.lower()}])\)"
        rf"|([{letters}])(?=[*_]*+[).:]|,?\s+(?:because|since|not)\b))",
        line,
    )
    if led is not None:
        marked = led[1] is not None or line[led.end()] in ").:*_"
        listed = marked and _lists_choices(part, led.end(), letters)
        return None if listed else (led[1] or led[2]).upper()
    sentence = re.split(r"[.!]\s", line, maxsplit=1)[0]
    full = [
        letter
        for letter, choice in zip(LETTERS, choices)
        if same_words(line, choice) or same_words(sentence, choice)
    ]
    return full[0] if len(full) == 1 else None


def _lists_choices(text: str, start: int, letters: str) -> bool:
    """Whether other choices follow the first by letter or name: "A. sand B. rain", "A or B"."""
    # a next question that the model invented, with its own choices, follows a blank line
    rest = text[start:].lstrip(" ).:*").partition("\n\n")[0]
    if re.match(rf"{_JOINED}\(?[{letters}]\b", text[start:]) is not None:
        return True
    return re.search(rf"(?<![\w.])\(?[{letters}][).:](?=\s|$)", rest) is not None
