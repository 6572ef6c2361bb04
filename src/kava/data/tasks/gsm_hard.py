"""GSM-Hard: the problems of GSM8K's test split with one number replaced by a large one.

Gao et al., arXiv 2211.10435. A row's `target` is the value of a program that was run on the new
number: huge, negative, or with the rounding of floats, as in 3244047.0999999996. So an answer is
right within 0.001, as in the paper's own evaluation; where the target itself is smaller than 1,
within a thousandth of it, because 0 would be right for 0.0000020107 otherwise. The program is no
chain of thought in words, and is not read.
"""

from __future__ import annotations

from decimal import Decimal

from kava.data.answers import Judge, extract_answer
from kava.data.fields import Row, id_of, text_of, whole
from kava.data.numbers import Number, read_number, whole_number
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task

TOLERANCE = Decimal("0.001")
_MOST_EXPONENT = 400


def near_number(predicted: str, gold: str) -> bool:
    """Whether an answer is the gold number within the tolerance.

    Example:
        >>> near_number("3244047.1", "3244047.0999999996"), near_number("0", "0.0000020107")
        (True, False)
    """
    found, wanted = read_number(predicted), whole_number(gold)
    if found is None or wanted is None:
        return False
    if found.number == wanted.number:
        return True
    one, other = _decimal(found.number), _decimal(wanted.number)
    if one is None or other is None:
        return False
    return abs(one - other) < TOLERANCE * min(Decimal(1), abs(other))


def _decimal(number: Number) -> Decimal | None:
    """A number for arithmetic; None for one that is far from every target."""
    if abs(number.exponent) + len(number.digits) > _MOST_EXPONENT:
        return None
    return Decimal((number.negative, tuple(map(int, number.digits or "0")), number.exponent))


def _find(text: str) -> str:
    return extract_answer(text, "", numeric=True)


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    return Record(
        id=id_of(row, name, where, prefix="gsm_hard-"),
        question=text_of(row, "input", where),
        reasoning="",
        answer=whole(text_of(row, "target", where)),
        where=where,
    )


GSM_HARD = Task(
    name="gsm_hard",
    folder="gsm_hard",
    hub=("reasoning-machines/gsm-hard", None),
    hub_splits={"test": "train"},
    files={"test": ("gsmhardv2.jsonl", "test.jsonl", "train.jsonl")},
    read=_read,
    reasons=False,
    aliases=("reasoning-machines/gsm-hard",),
    judge=Judge(find=_find, same=near_number),
)
