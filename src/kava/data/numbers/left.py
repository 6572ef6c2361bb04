"""Read the text before a number: its sign and currency, or what makes it part of more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kava.data.numbers.tokens import (
    BOUNDS,
    CLOSING,
    CURRENCIES,
    JOINS,
    MINUS,
    OPENING,
    SHARES,
    STOPS,
    Token,
)


class Left(NamedTuple):
    """The parts of a number before its digits.

    Attributes:
        negative: whether it has a minus sign.
        unit: its currency sign, or "".
        start: index of the first of them in the text; None if there are none.
        alone: whether nothing else is before the number.
    """

    negative: bool
    unit: str
    start: int | None
    alone: bool


def read_left(tokens: Sequence[Token]) -> Left | None:
    """Read the text before a number; None if the number is part of something else."""
    walk = _Walk(tokens)
    sign = walk.sign()
    unit = walk.currency()
    outer = walk.sign() if unit else None
    if sign is not None and outer is not None:
        return None
    signed = sign or outer
    allowed = walk.allows_number() if signed is None else walk.allows_sign(signed)
    if not allowed:
        return None
    negative = signed is not None and signed.text != "+"
    return Left(negative, unit, walk.start, not any(token.says for token in tokens[: walk.at]))


class _Sign(NamedTuple):
    text: str
    apart: bool  # whether there is a blank between sign and number


class _Neighbour(NamedTuple):
    """The next token to the left that is not a blank, quote, emphasis or opening bracket."""

    token: Token
    at: int
    apart: bool  # whether a blank was skipped
    bracket: bool  # whether an opening bracket was skipped


class _Walk:
    """A walk to the left from a number."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = len(tokens)
        self.start: int | None = None

    def sign(self) -> _Sign | None:
        """Step over a sign, if it is next."""
        at, apart = self._next()
        token = self.tokens[at] if at >= 0 else None
        if token is None or not (token.text in ("-", "+") or token.word in MINUS):
            return None
        self.at, self.start = at, token.start
        return _Sign(token.text, apart and token.kind != "word")

    def currency(self) -> str:
        """Step over a currency sign, if it is next."""
        at, _ = self._next()
        token = self.tokens[at] if at >= 0 else None
        if token is None or token.text not in CURRENCIES:
            return ""
        self.at, self.start = at, token.start
        return token.text

    def allows_sign(self, sign: _Sign) -> bool:
        """Whether the text to the left shows that a sign is a sign and not an operator."""
        left = self._neighbour()
        if left is None or left.token.kind == "arrow":
            return True
        token = left.token
        if token.kind in ("word", "letters"):
            if token.word in BOUNDS | MINUS | JOINS or not left.apart:
                return False
            # "leaves -3", but not "x -3", nor "total - 3"
            return left.bracket or (not sign.apart and len(token.text) > 1)
        return token.text in STOPS and (left.apart or token.text in ":,;")

    def allows_number(self) -> bool:
        """Whether the text to the left allows a number without a sign."""
        left = self._neighbour()
        if left is None or left.token.kind == "arrow":
            return True
        token = left.token
        if token.kind == "word":
            joins = token.word in JOINS | {"x"} and self._has_number()
            refused = (
                token.word in BOUNDS
                or token.word.endswith("n't")
                or joins
                or self._takes_share(left)
            )
            return not refused and (left.apart or not left.bracket)  # sqrt(16)
        if token.kind == "letters":
            return left.apart or not (left.bracket or token.is_greek or token.is_numeral)
        if token.kind in ("number", "compare", "stars", "dots"):
            return False
        if token.text in STOPS:
            return self._begins_a_clause(left)
        if token.text in CLOSING:
            return left.apart and not left.bracket
        if token.text == "~":
            return not self._has_number()
        return not token.is_operator

    def _takes_share(self, left: _Neighbour) -> bool:
        """Whether the text modifies the number: half of 18, up to 18."""
        earlier = next((t for t in reversed(self.tokens[: left.at]) if t.says), None)
        if earlier is None:
            return False
        if left.token.word == "of":
            return earlier.word in SHARES
        return (earlier.word, left.token.word) == ("up", "to")

    def _next(self) -> tuple[int, bool]:
        """Index of the next token that is not a blank, and whether a blank was skipped."""
        at = self.at - 1
        if at >= 0 and self.tokens[at].kind == "blank":
            return at - 1, True
        return at, False

    def _neighbour(self) -> _Neighbour | None:
        apart = bracket = False
        at = self.at - 1
        while at >= 0:
            token = self.tokens[at]
            if token.kind == "blank":
                apart = True
            elif token.kind == "stars":
                # a star with blanks on both sides, or on neither, multiplies
                blank = at > 0 and self.tokens[at - 1].kind == "blank"
                operand = self.tokens[at - 1 - blank] if at > blank else None
                if operand is not None and operand.is_operand and blank == apart:
                    return _Neighbour(token, at, apart, bracket)
                apart = apart or blank
            elif token.text in OPENING:
                bracket, apart = True, False
            elif token.says:
                return _Neighbour(token, at, apart, bracket)
            at -= 1
        return None

    def _has_number(self) -> bool:
        return any(token.kind == "number" for token in self.tokens)

    def _begins_a_clause(self, left: _Neighbour) -> bool:
        """Whether punctuation separates the number from the text before; "5, 18" is a list."""
        earlier = self.tokens[left.at - 1] if left.at > 0 else None
        if earlier is not None and (earlier.kind == "number" or earlier.text == "%"):
            return left.token.text == "." and left.apart
        return left.apart or (earlier is not None and left.token.text in ".:—")
