"""JSON in files: whole documents, lists of rows, and one object a line."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kava.inputs.errors import Malformed
from kava.inputs.text import line_ends, line_of, open_text, read_text


class WrittenNumber(str):
    """A number as the text by which a file writes it: `0.00001`, `1e16`, `-0`, `2.50`.

    A number that becomes part of a text must not be rewritten by the way through a float.

    Example:
        >>> parse_json('{"answer": 2.50}', "a.json", as_written=True)
        {'answer': 2.50}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _KeyTwice(ValueError):  # noqa: N818
    """An object with a key that stands in it twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _KeyTwice
    return found


_VALUES = json.JSONDecoder(object_pairs_hook=_object)
_AS_WRITTEN = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=WrittenNumber, parse_int=WrittenNumber
)
_BLANKS = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)


def parse_json(
    text: str, source: str | Path, *, line: int | None = None, as_written: bool = False
) -> Any:
    """The value of a JSON text.

    Args:
        text: one JSON value.
        source: the file it is from, for messages.
        line: the file's line that the text is; None: the text is the whole file.
        as_written: give numbers as `WrittenNumber`, in place of int and float. NaN and Infinity,
            which Python writes though JSON has none, are floats either way.

    Raises:
        Malformed: no JSON, an object with a key twice, nesting too deep to be read.

    Example:
        >>> parse_json('{"a": 1}', "a.json")
        {'a': 1}
    """
    start = _blanks_from(text, 0)
    value, end = _decode(text, start, source, line, as_written)
    rest = _blanks_from(text, end)
    if rest < len(text):
        raise _no_json(text, rest, "Extra data", source, line)
    return value


def read_json(path: str | Path) -> Any:
    """The value in a JSON file.

    Raises:
        Malformed: the file is no UTF-8 text or no JSON, or has a key twice in one object.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path), path)


def json_lines(
    path: str | Path, *, as_written: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line number and the object of every line that is not blank.

    Args:
        path: a file with one JSON object a line.
        as_written: as in `parse_json`.

    Raises:
        Malformed: a line that is no UTF-8 text, no JSON, no object, or has a key twice.
        OSError: the file cannot be read.
    """
    with open_text(path) as file:
        for number, text in enumerate(file, start=1):
            # files that were put together by `cat` have byte order marks inside
            text = text.removeprefix("\ufeff")
            if not text.strip():
                continue
            if text.strip() in ("{", "["):
                raise Malformed(
                    path,
                    number,
                    "is not JSON: it goes on on the next line; each line must hold one object, "
                    "and a list of rows is read from a file that ends in .json",
                )
            row = parse_json(text, path, line=number, as_written=as_written)
            if not isinstance(row, dict):
                raise Malformed(path, number, f"must be a JSON object, got {shown(row)}")
            yield number, row


def whole_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a log, without the half line that a killed run leaves at its end.

    Raises:
        Malformed: any other line that is no JSON object.
        OSError: the file cannot be read.
    """
    lines = re.split(r"\r\n?|\n", read_text(path))
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, path, line=number)
        except Malformed:
            if number < len(lines):
                raise
            break
        if not isinstance(row, dict):
            raise Malformed(path, number, f"must be a JSON object, got {shown(row)}")
        rows.append(row)
    return rows


def json_items(path: str | Path, *, as_written: bool = False) -> Iterator[tuple[int, Any]]:
    """The elements of the list in a JSON file, each with the line on which it begins.

    Raises:
        Malformed: as `read_json`, or something else than a list.
        OSError: the file cannot be read.
    """
    text = read_text(path)
    start = _blanks_from(text, 0)
    if not text.startswith("[", start):
        value = parse_json(text, path)
        found = type(value).__name__
        if isinstance(value, dict) and value:
            found += f" with the keys {', '.join(map(repr, list(value)[:4]))}"
        raise Malformed(path, None, f"must be a list of rows, got {found}")
    line, counted = 1, 0
    end = _blanks_from(text, start + 1)
    while not text.startswith("]", end):
        if counted and not text.startswith(",", end):
            raise _no_json(text, end, "Expecting ',' delimiter", path, None)
        at = _blanks_from(text, end + 1) if counted else end
        line, counted = line + line_ends(text, counted, at), at
        value, end = _decode(text, at, path, None, as_written)
        yield line, value
        end = _blanks_from(text, end)
    rest = _blanks_from(text, end + 1)
    if rest < len(text):
        raise _no_json(text, rest, "Extra data", path, None)


def shown(value: Any) -> str:
    """A value in a message: short, and on one line."""
    return f"{reprlib.repr(value):.40}"


def _decode(
    text: str, start: int, source: str | Path, line: int | None, as_written: bool
) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends."""
    decoder = _AS_WRITTEN if as_written else _VALUES
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _no_json(text, error.pos, error.msg, source, line) from None
    except _KeyTwice:
        place, key = _second(text, start)
        raise Malformed(
            source,
            line_of(text, place) if line is None else line,
            f"has the key {key:.60} twice in one object; leave one of them out",
        ) from None
    except RecursionError:
        problem = "is nested too deep to be read"
    except ValueError:  # Python's limit on the conversion of long whole numbers
        problem = "holds a whole number of too many digits to be read"
    raise Malformed(source, line_of(text, start) if line is None else line, problem)


def _no_json(
    text: str, position: int, problem: str, source: str | Path, line: int | None
) -> Malformed:
    column = position - max(text.rfind("\n", 0, position), text.rfind("\r", 0, position))
    where = line_of(text, position) if line is None else line
    return Malformed(source, where, f"is not JSON: {problem}, at character {column}")


def _second(text: str, start: int) -> tuple[int, str]:
    """The place of the first key that stands twice in an object that is whole, and the key."""
    keys: list[set[str] | None] = []  # of the objects that are open; None for a list
    twice: list[tuple[int, str] | None] = []
    expected = False
    for token in _TOKEN.finditer(text, start):
        kind = token[0]
        if kind in "{[":
            keys.append(set() if kind == "{" else None)
            twice.append(None)
        elif kind in "}]":
            keys.pop()
            if (found := twice.pop()) is not None:
                return found
        elif expected and kind != ",":
            own, key = keys[-1], json.loads(kind)
            assert own is not None
            if key in own and twice[-1] is None:
                twice[-1] = token.start(), kind
            own.add(key)
        expected = bool(keys) and keys[-1] is not None and kind in "{,"
    raise AssertionError("no key stands twice")


def _blanks_from(text: str, start: int) -> int:
    found = _BLANKS.match(text, start)
    assert found is not None
    return found.end()
