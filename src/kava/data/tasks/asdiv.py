"""ASDiv: word problems of primary school, of many kinds, from one step to two unknowns.

Miao et al., arXiv 2106.15772; rows of the hub, or of the original ASDiv.xml. Units in brackets
behind a number are left out of the answer: `9 (apples)` is 9. Most answers are one number; the
others are compared as words: several numbers (`5 (years old); 15 (years old)` is `5; 15`), ratios
(`3:4`), times, names. The formula is no chain of thought, and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from kava.data.fields import Row, id_of, text_of
from kava.data.records import Record
from kava.data.rows import PlacedRow, RowReader
from kava.data.tasks.base import Task
from kava.inputs import Malformed

_UNIT = re.compile(r"(?<=[\d.%])\s*+\([^()]*+\)")


def without_units(answer: str) -> str:
    """An answer without the units behind its numbers.

    Example:
        >>> [without_units(text) for text in ("9 (apples)", "8 (ft); 128 (sq. ft)", "-(1/3)")]
        ['9', '8; 128', '-(1/3)']
    """
    return _UNIT.sub("", answer).strip()


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    body, question = text_of(row, "body", where), text_of(row, "question", where)
    return Record(
        id=id_of(row, name, where, prefix="asdiv-"),
        question=f"{body} {question}".strip(),
        reasoning="",
        answer=without_units(text_of(row, "answer", where)),
        where=where,
    )


def _problems(path: Path) -> Iterator[PlacedRow]:
    """The `<Problem>` elements of the original file."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise Malformed(path, error.position[0], "is not XML") from error
    for number, problem in enumerate(root.iter("Problem")):
        fields: dict[str, str] = {part.tag.lower(): part.text or "" for part in problem}
        name = problem.get("ID", "")
        yield PlacedRow(number, f"{path}, problem {name or number}", {**fields, "id": name})


ASDIV = Task(
    name="asdiv",
    folder="asdiv",
    hub=("EleutherAI/asdiv", "asdiv"),
    hub_splits={"test": "validation"},
    files={"test": ("ASDiv.xml", "validation.jsonl", "test.jsonl")},
    read=_read,
    reasons=False,
    aliases=("EleutherAI/asdiv",),
    formats={".xml": _problems},
)
