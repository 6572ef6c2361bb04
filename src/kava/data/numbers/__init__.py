"""Read numbers as people write them, exactly or not at all.

    tokens.py   the tokens of a text, and the meaning of words and signs next to a number
    left.py     the text before a number: its sign and currency, or a reason not to read it
    right.py    the text after it: a scale, a unit, an explanation, or such a reason
    read.py     the number that a text gives

The table in docs/evaluation.md lists what is read, and what is not because it is several numbers or
another number (a range, an expression, a hedge, a bound).
"""

from __future__ import annotations

from kava.data.numbers.read import Number, Reading, last_number, read_number, whole_number

__all__ = ["Number", "Reading", "last_number", "read_number", "whole_number"]
