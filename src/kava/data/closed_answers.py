"""Answers out of a closed set: yes or no, and the letter of a choice.

A reading is strict about where an answer may stand, for reasoning is full of words that look like
one: it stands first, behind the cue, or behind "the answer is". "No one knows", "yes and no", the
article "A" and a list of all choices are no answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SAID = re.compile(
    r"""\b(?:answer|choice|option)(?:\ to\ (?:the|this)\ question)?
    \s*(?:\ is|\ would\ be|\ must\ be|:|=)\s*:?\s*
    (?:(?:the\s+)?(?:answer|option|choice|letter)\b\s*)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_WRAPPED = re.compile(r"\\(?:boxed|text(?:bf)?|mathrm)\s*\{([^{}]*)\}")
_GOES_ON = r"because|since|as|not|which|it|its|he|she|they|this|that|these|there|the|you|we|i|for"
_YES_NO = re.compile(
    rf"(yes|no|true|false)\b(?!\.\s*\d)(?!\W*(?:yes|no|true|false)\b)"
    rf"(?=\s*$|\s*[.,;:!)\n\u2014\u2013]|\s+-|\s+(?:{_GOES_ON})\b)",
    re.IGNORECASE,
)
_POLARITY = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def polarity(answer: str) -> str | None:
    """Of an answer that is yes or no and nothing else: which; None for any other.

    Example:
        >>> [polarity(answer) for answer in ("Yes.", "False", "no one")]
        ['yes', 'no', None]
    """
    return _POLARITY.get(_simple(answer))


def said(text: str) -> str:
    """What follows the last "the answer is" of a text; the whole text where there is none.

    Example:
        >>> said("It rains. So the answer is (B).")
        '(B).'
    """
    plain = _bare(text)
    found = list(_SAID.finditer(plain))
    return plain[found[-1].end() :] if found else plain


def read_yes_no(text: str) -> str | None:
    """Whether a text says yes or no; None where it says neither.

    Example:
        >>> read_yes_no("Yes, because it rains."), read_yes_no("So the answer is false")
        ('yes', 'no')
        >>> read_yes_no("No one knows.") is None
        True
    """
    found = _YES_NO.match(said(text))
    return None if found is None else _POLARITY[found[1].lower()]


def read_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text gives, by its letter or in full; None for none.

    Args:
        text: a generated text, or the part behind its cue.
        choices: the choices' texts, in the order of their letters.

    Example:
        >>> choices = ["sand", "rain"]
        >>> [read_letter(text, choices) for text in ("(B)", "The answer is B.", "Rain.", "A dog")]
        ['B', 'B', 'B', None]
    """
    part = said(text)
    letters = LETTERS[: len(choices)]
    lines = part.strip().splitlines()
    line = lines[0] if lines else ""
    alone = re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", line)
    if alone is not None:
        return None if _lists_choices(part, alone.end(1), letters) else alone[1].upper()
    led = re.match(
        rf"\(([{letters}{letters.lower()}])\)|([{letters}])(?=[).:]|,?\s+(?:because|since|not)\b)",
        line,
    )
    if led is not None:
        marked = led[1] is not None or line[led.end()] in ").:"
        listed = marked and _lists_choices(part, led.end(), letters)
        return None if listed else (led[1] or led[2]).upper()
    wanted = {_simple(line), _simple(re.split(r"[.!]\s", line)[0])}
    full = [a for a, choice in zip(LETTERS, choices) if _simple(choice) in wanted - {""}]
    return full[0] if len(full) == 1 else None


def _lists_choices(text: str, start: int, letters: str) -> bool:
    """Whether other choices are lettered behind the first, as in "A. sand B. rain"."""
    # a next question that the model made up, with choices of its own, comes after a blank line
    rest = text.strip()[start:].lstrip(" ).:").partition("\n\n")[0]
    return re.search(rf"(?<![\w.])\(?[{letters}][).:](?=\s|$)", rest) is not None


def _bare(text: str) -> str:
    """Without emphasis, boxes and blanks around it."""
    text = unicodedata.normalize("NFKC", text).replace("*", "").replace("$", "")
    return _WRAPPED.sub(r"\1", text).strip().lstrip("\"'`_#").strip()


def _simple(text: str) -> str:
    """Words without case and punctuation around them."""
    words = (word.strip("\"'`.,;:!?()[]") for word in _bare(text).casefold().split())
    return " ".join(word for word in words if word)
