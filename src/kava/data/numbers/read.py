"""Read the number that a text gives, exactly: digits and an exponent of ten, not a float."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from kava.data.numbers.left import read_left
from kava.data.numbers.right import read_right
from kava.data.numbers.tokens import CLOSING, HEDGES, QUOTES, REASONS, Token, tokens_of
from kava.data.plain import plain


class Number(NamedTuple):
    """An exact number: ± digits × 10^exponent, without zeros at either end of the digits."""

    negative: bool
    digits: str
    exponent: int

    def __str__(self) -> str:
        """Plain digits, unless there are extremely many."""
        sign, size = "-" if self.negative else "", len(self.digits) + self.exponent
        if not self.digits:
            return "0"
        if self.exponent > _MOST_ZEROS or size < -_MOST_ZEROS:
            return f"{sign}{self.digits}e{self.exponent}"
        if self.exponent >= 0:
            return sign + self.digits + "0" * self.exponent
        if size <= 0:
            return f"{sign}0.{'0' * -size}{self.digits}"
        return f"{sign}{self.digits[:size]}.{self.digits[size:]}"


class Reading(NamedTuple):
    """A number that was read.

    Attributes:
        number: its value.
        unit: "%" or a currency sign, if the text has one; "" for any other unit or none.
        text: the number as written, with its sign and all that belongs to its value.
        alone: whether the text is only the number.
    """

    number: Number
    unit: str
    text: str
    alone: bool


_MOST_ZEROS = 400
_POWER_OF_TEN = re.compile(
    r"""
    (?: (?<=\d) \ ?+ [×·x*] \ ?+ | (?<![\w.^*/×·÷]) (?P<bare>) )
    10 \^ (?P<exponent> [+-]?+ \d{1,9}+ ) (?! \w | \^ | [.,]\d )
    """,
    re.VERBOSE,
)
_VALUE = re.compile(
    r"""
    (?P<whole> [1-9]\d{0,2} (?: (?:,\d{3})++ | (?:'\d{3})++ | (?:_\d{3})++ | (?:\ \d{3})++ )
             | [1-9]\d? (?: ,\d\d (?!\d) )++ ,\d{3}
             | \d++
             | (?=\.) )
    (?: \. (?P<fraction> \d++ ) )?+
    (?: [eE] (?P<exponent> [+-]?+ \d{1,9}+ ) )?+
    """,
    re.VERBOSE,
)
_NOT_DIGITS = str.maketrans("", "", ",'_ ")


@lru_cache(maxsize=1024)
def read_number(text: str) -> Reading | None:
    """The number that an answer gives; None if it gives none, or more than one.

    It is the first number, or in an equation such as `9 * 2 = 18` the one after the equals sign.

    Example:
        >>> [str(read_number(text).number) for text in ("$1,234.50 a day", "1.5e-3", "9 * 2 = 18")]
        ['1234.5', '0.0015', '18']
        >>> [read_number(text) for text in ("18-20", "18 or 19", "2^3", "1/2", "at least 18")]
        [None, None, None, None, None]
    """
    text = _POWER_OF_TEN.sub(_as_exponent, plain(text))
    sides = [side for side in _sides(text) if any(token.says for token in side)]
    numeric = [side for side in sides if _places(side)]
    for side, following in zip(numeric, [*numeric[1:], None]):
        found = _read(side, _places(side)[0], text)
        if found is None:
            if _is_expression(side):
                continue
            return None
        reading, explained = found
        if following is not None and not explained:
            other = _read(following, _places(following)[0], text)
            if other is not None and other[0].number != reading.number:
                return None
        return reading if len(sides) == 1 else reading._replace(alone=False)
    return None


def last_number(text: str) -> Reading | None:
    """The last number of a text; None if it is part of something else.

    Example:
        >>> last_number("16 - 3 - 4 = 9, and 9 * 2 = 18.").text
        '18'
        >>> last_number("It is 18. Half of it: 18/2") is None
        True
    """
    for line in reversed(text.splitlines()):
        line = _POWER_OF_TEN.sub(_as_exponent, plain(line))
        for side in reversed(_sides(line)):
            if places := _places(side):
                found = _read(side, places[-1], line)
                return None if found is None else found[0]
    return None


def whole_number(text: str) -> Reading | None:
    """The number if a text is only a number, else None.

    Example:
        >>> whole_number("**$1,234.50**").text, whole_number("18 eggs")
        ('$1,234.50', None)
    """
    found = read_number(text)
    return found if found is not None and found.alone else None


def _as_exponent(power: re.Match[str]) -> str:
    return f"{'' if power['bare'] is None else '1'}e{power['exponent']}"


def _sides(line: str) -> list[list[Token]]:
    """The tokens of a text, split at its equals signs."""
    sides: list[list[Token]] = [[]]
    for token in tokens_of(line):
        if token.kind == "equal":
            sides.append([])
        else:
            sides[-1].append(token)
    return sides


def _places(side: Sequence[Token]) -> list[int]:
    return [index for index, token in enumerate(side) if token.kind == "number"]


def _encloses(left: Sequence[Token], right: Sequence[Token]) -> bool:
    """Whether quotes or stars after a number close opening ones; 5" and 5* are not numbers."""
    before = {token.text if token.kind == "other" else token.kind for token in left}
    return all(
        (token.text if token.kind == "other" else token.kind) in before
        for token in right
        if token.kind in ("stars", "tag") or token.text in QUOTES | CLOSING
    )


def _is_expression(side: Sequence[Token]) -> bool:
    """Whether one side of an equation is an expression and not a sentence."""
    works = any(
        token.is_operator
        or token.kind == "stars"
        or token.word in ("x", "times", "plus", "minus")
        or (token.kind == "number" and "/" in token.text)
        for token in side
    )
    return works and not any(
        token.text in (",", ";", ":", "?", "!", "—")
        or token.kind in ("compare", "arrow", "dots")
        or token.word in REASONS | HEDGES | {"and", "is", "to"}
        for token in side
    )


def _read(side: Sequence[Token], place: int, text: str) -> tuple[Reading, bool] | None:
    """The number at an index, and whether an explanation follows; None if it is no answer."""
    value = _value(side[place].text)
    if value is None:
        return None
    left, right = read_left(side[:place]), read_right(side[place + 1 :])
    if left is None or right is None:
        return None
    # "$" before and "cents" after are two units
    if left.unit and right.unit and left.unit != right.unit:
        return None
    whole, fraction, exponent = value
    digits = (whole + fraction).lstrip("0")
    bare = digits.rstrip("0")
    power = exponent - len(fraction) + len(digits) - len(bare) + right.power
    number = Number(left.negative, bare, power) if bare else Number(False, "", 0)
    start = left.start if left.start is not None else side[place].start
    stop = right.stop if right.stop is not None else side[place].stop
    alone = left.alone and right.alone and _encloses(side[:place], side[place + 1 :])
    return Reading(number, left.unit or right.unit, text[start:stop], alone), right.explained


def _value(written: str) -> tuple[str, str, int] | None:
    """Integer digits, fraction digits and exponent in a consistent notation; else None."""
    found = _VALUE.fullmatch(written)
    if found is None:
        return None
    return (
        found["whole"].translate(_NOT_DIGITS),
        found["fraction"] or "",
        int(found["exponent"] or 0),
    )
