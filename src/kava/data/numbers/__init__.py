"""Numbers as people write them, read exactly or not at all.

    tokens.py   the pieces of a text, and what words and signs mean beside a number
    left.py     what stands before a number: its sign and currency, or a reason not to read it
    right.py    what stands behind it: a scale, a unit, an explanation, or such a reason
    read.py     which number a text gives

What is read, and what is not because it is more than one number or another one (a range, an
expression, a hedge, a bound), is the table of docs/evaluation.md.
"""

from __future__ import annotations

from kava.data.numbers.read import Number, Reading, last_number, read_number, whole_number

__all__ = ["Number", "Reading", "last_number", "read_number", "whole_number"]
