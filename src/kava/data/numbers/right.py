"""Read the text after a number: scale, unit, explanation, or what makes it no answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from kava.data.numbers.tokens import (
    CLOSING,
    CURRENCIES,
    HEDGES,
    JOINS,
    MORE,
    NAMED_UNITS,
    OPENING,
    OTHER_SCALES,
    PARTS,
    REASONS,
    SCALES,
    SHORT_SCALES,
    STOPS,
    UNIT_GREEK,
    UNIT_LETTERS,
    UNKNOWNS,
    Token,
)


class Right(NamedTuple):
    """The parts of a number after its digits.

    Attributes:
        power: power of ten of its scale.
        unit: "%" or a currency sign; "" for any other unit or none.
        stop: index at which the last of them ends; None if there are none.
        alone: whether nothing else is after the number.
        explained: whether an explanation follows.
    """

    power: int
    unit: str
    stop: int | None
    alone: bool
    explained: bool


def read_right(tokens: Sequence[Token]) -> Right | None:
    """Read the text after a number; None if the number is part of something else."""
    walk = _Walk(tokens)
    if not (walk.begins_well() and walk.goes_on_well()):
        return None
    return Right(walk.power, walk.unit, walk.stop, walk.alone, walk.explained)


class _Walk:
    """A walk to the right from a number, to the end of its clause."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.power = 0
        self.unit = ""
        self.stop: int | None = None
        self.alone = True
        self.explained = False
        self.first = True  # no unit was passed yet
        # for each index, the next token that has content
        self.said = [len(tokens)] * (len(tokens) + 1)
        for at in range(len(tokens) - 1, -1, -1):
            self.said[at] = at if tokens[at].says else self.said[at + 1]

    def begins_well(self) -> bool:
        """Whether a token directly after the number leaves its value unchanged."""
        token = self.tokens[0] if self.tokens else None
        if token is None or token.word in SCALES or token.word in NAMED_UNITS:
            return True
        if token.kind == "word":
            # a unit as in 5km; not a variable as in 5x, nor 0x1F
            name = token.text.partition("^")[0]
            return name.isalpha() and (len(name) > 1 or name in UNIT_LETTERS)
        if token.kind == "letters":
            return token.text[0] in UNIT_GREEK or not token.is_greek
        if token.text == "(":
            inside = self._said_from(1)
            return inside is None or (inside.kind == "word" and len(inside.text) > 1)
        marked = unicodedata.category(token.text[0]) == "Mn"
        return token.kind != "dots" and token.text not in "!+" and not marked

    def goes_on_well(self) -> bool:
        """Whether the rest of the clause leaves the number's value unchanged."""
        for at, token in enumerate(self.tokens):
            if token.word in REASONS or token.text == "(":
                self._explain()
            elif token.kind == "word":
                if not self._passes_word(at):
                    return False
            elif token.kind == "letters":
                scale = self.first and token.text.startswith(OTHER_SCALES)
                if scale or token.is_numeral:
                    return False
                self.first = self.alone = False
            elif token.text in STOPS or token.kind in ("arrow", "dots"):
                return self._stops_well(at)
            elif token.text in ("-", "/"):
                if not self._links(at):
                    return False
            elif token.kind == "stars":
                if self._multiplies(at):
                    return False
            elif token.text == "%" or token.text in CURRENCIES:
                if not self._takes_unit(token.text, token):
                    return False
            elif token.kind in ("number", "compare") or token.is_operator:
                return False
            elif token.says and token.text not in CLOSING:
                self.alone = False
            if self.explained:
                return True
        return True

    def _said_from(self, at: int) -> Token | None:
        at = self.said[at]
        return self.tokens[at] if at < len(self.tokens) else None

    def _is_blank(self, at: int) -> bool:
        return 0 <= at < len(self.tokens) and self.tokens[at].kind == "blank"

    def _passes_word(self, at: int) -> bool:
        token, first = self.tokens[at], self.first
        if first and token.word in SCALES:
            self.power, self.stop = self.power + SCALES[token.word], token.stop
            return True
        another = token.text.partition("^")[0] in UNKNOWNS or token.word in PARTS
        if token.word in HEDGES or (first and (another or token.text in SHORT_SCALES)):
            return False
        behind = self._said_from(at + 1)
        if token.word == "and" and behind is not None:
            if behind.word in ("a", "one"):
                behind = self._said_from(self.said[at + 1] + 1)
            if behind is not None and behind.word in MORE:
                return False
        unit = NAMED_UNITS.get(token.word)
        if token.word == "per" and behind is not None and behind.word == "cent":
            unit, token = "%", behind
        if first and unit is not None and not self.unit:
            self.alone = self.alone and unit == "%"
            return self._takes_unit(unit, token)
        # "5 per cent" was read at its first word
        cents = token.word == "cent" and self.unit == "%"
        self.first, self.alone = False, self.alone and cents
        return True

    def _takes_unit(self, unit: str, token: Token) -> bool:
        if not self.first or self.unit:
            return unit != "%"
        self.unit, self.stop, self.first = unit, token.stop, False
        return True

    def _links(self, at: int) -> bool:
        """Whether a dash or slash links a unit (18-year-old, km/h) or starts an explanation."""
        token, behind = self.tokens[at], self._said_from(at + 1)
        if behind is None:
            self.alone = False
            return True
        letter = len(behind.text) == 1 and (token.text == "-" or behind.text in UNKNOWNS)
        if behind.kind not in ("word", "letters") or letter:
            return False
        self.alone = False
        if token.text == "-" and self._is_blank(at - 1) and self._is_blank(at + 1):
            self._explain()
        return True

    def _multiplies(self, at: int) -> bool:
        """Whether stars are between two operands, with blanks on both sides or on neither."""
        operand = self._said_from(at + 1)
        if operand is None or not (operand.is_operand or operand.text in OPENING):
            return False
        return self._is_blank(at - 1) == self._is_blank(at + 1)

    def _explain(self) -> None:
        self.explained, self.alone = True, False

    def _stops_well(self, at: int) -> bool:
        """Whether the text after punctuation explains the number and does not continue a list."""
        place = self.said[at + 1]
        while place < len(self.tokens) and self.tokens[place].text in CLOSING | OPENING | STOPS:
            place = self.said[place + 1]
        if place == len(self.tokens):
            return True
        self._explain()
        token = self.tokens[place]
        counts = token.text in CURRENCIES or token.text in ("-", "+")
        if counts or token.kind in ("number", "dots", "compare") or token.word in HEDGES:
            return False
        if token.word not in JOINS:
            return True
        for later in self.tokens[place:]:
            if later.text in STOPS:
                return True
            if later.kind == "number" or later.word in MORE:
                return False
        return True
