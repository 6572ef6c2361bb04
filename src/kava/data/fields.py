"""Read the fields of a row as text, and refuse values that are not text.

Values are not changed: a number is written as in its file, and only blanks around a text are
removed. A value without text form (NaN, null, true, a list) is an error that names the row; it
never becomes the word that Python prints for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kava.inputs import WrittenNumber, shown

Row = Mapping[str, Any]
"""The fields of one row, by name."""

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_ZERO = re.compile(r"(?<=\d)\.0++(?!\d)")


def text_of(row: Row, name: str, where: str) -> str:
    """A field of a row as text, without surrounding blanks.

    Args:
        row: a row's fields.
        name: the field.
        where: file and line of the row, for messages.

    Raises:
        ValueError: the field is missing, or neither text nor a number.

    Example:
        >>> text_of({"answer": " 72\\n"}, "answer", "a.jsonl, line 1")
        '72'
    """
    return as_text(field(row, name, where), f"{where}: field {name!r}")


def as_text(value: Any, what: str) -> str:
    """A value as text, without surrounding blanks.

    Args:
        value: text or a number.
        what: name of the value, for messages.

    Raises:
        ValueError: neither text nor a number, NaN or infinite, or text with half a surrogate pair,
            which no tokenizer can read.

    Example:
        >>> as_text(1e16, "the answer"), as_text("1e16", "the answer")
        ('10000000000000000', '1e16')
    """
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"{what} must be text, got {shown(value)}")
    elif not math.isfinite(value):
        written = "NaN" if math.isnan(value) else f"{value}"
        raise ValueError(
            f"{what} is the number {written}, which is no text; write it in quotes if it is "
            f"meant, or leave the row out"
        )
    else:
        text = plain_number(value)
    check_characters(text, what)
    return text.strip()


def check_characters(text: str, what: str) -> None:
    """Refuse text with half a surrogate pair, which no tokenizer can read.

    Raises:
        ValueError: the text contains half a surrogate pair.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ValueError(
            f"{what} holds {text[problem.start]!r}, half of a surrogate pair, which is no "
            f"character; mend the row or leave it out"
        ) from None


def plain_number(value: float | Decimal) -> str:
    """The shortest decimal form of a number, without an exponent.

    Example:
        >>> plain_number(0.00001), plain_number(72), plain_number(2.5)
        ('0.00001', '72', '2.5')
    """
    return f"{Decimal(str(value)):f}"


def whole(text: str) -> str:
    """A text with its whole numbers without their `.0`.

    Example:
        >>> whole("( 4.0 + 2.50 )"), whole("-9867630.0")
        ('( 4 + 2.50 )', '-9867630')
    """
    return _ZERO.sub("", text)


def field(row: Row, name: str, where: str) -> Any:
    """A field of a row, unchanged.

    Raises:
        ValueError: the field is missing.
    """
    if name not in row:
        others = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where} has no field {name!r} (it has {others}); name the field it uses")
    return row[name]


def field_of(row: Row, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a row with one of the given types other than text.

    In formats that have only text, such as .csv, whole numbers, `true` and `false` are parsed.

    Raises:
        ValueError: the field is missing, or of another type.

    Example:
        >>> field_of({"gold": "2", "fact": "True"}, "gold", int, "a.csv, row 0")
        2
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = field(row, name, where)
    if isinstance(value, str) and kind is int and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, str) and kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    wrong = isinstance(value, WrittenNumber) or (isinstance(value, bool) and bool not in kinds)
    if wrong or not isinstance(value, kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise ValueError(f"{where}: field {name!r} must be {names}, got {shown(value)}")
    return value


def texts_of(value: Any, what: str) -> list[str]:
    """A list of texts, each without surrounding blanks.

    Raises:
        ValueError: not a list, or a list with values other than text and numbers.
    """
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list of texts, got {shown(value)}")
    return [as_text(item, f"{what}, item {index}") for index, item in enumerate(value)]


def id_of(row: Row, default: str, where: str, *, name: str = "id", prefix: str = "") -> str:
    """The id of a row.

    Args:
        row: a row's fields.
        default: the id if the row has none, or a null or blank one.
        where: place of the row, for messages.
        name: the field with the id.
        prefix: text put before the row's own id.

    Raises:
        ValueError: an id that is neither text nor a number.

    Example:
        >>> id_of({"id": None}, "train-0", "a.jsonl, line 1"), id_of({"id": 7}, "", "")
        ('train-0', '7')
    """
    own = "" if row.get(name) is None else text_of(row, name, where)
    return prefix + own if own else default


def optional_text(row: Row, name: str, where: str) -> str | None:
    """A field as text; None if it is missing, null or blank.

    Raises:
        ValueError: neither text nor a number.
    """
    return None if row.get(name) is None else text_of(row, name, where) or None
