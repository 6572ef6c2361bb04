"""SVAMP: short arithmetic problems in varied wordings.

Patel et al., arXiv 2103.07191. The reasoning is the row's equation without its value, so no last
step states the answer.
"""

from __future__ import annotations

from kava.data.fields import Row, id_of, text_of, whole
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    question = f"{text_of(row, 'Body', where)} {text_of(row, 'Question', where)}"
    return Record(
        id=id_of(row, name, where, name="ID", prefix="svamp-"),
        question=question,
        reasoning=_equation(text_of(row, "Equation", where)),
        answer=whole(text_of(row, "Answer", where)),
        states_answer=False,
        where=where,
    )


def _equation(text: str) -> str:
    """Rewrite `( ( 4.0 + 2.0 ) / 3.0 )` as `(4 + 2) / 3`."""
    text = whole(text.strip())
    if text.startswith("(") and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text.replace("( ", "(").replace(" )", ")")


def _closes(text: str) -> int:
    """Index of the bracket that closes the first one of the text."""
    depth = 0
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return index
    return -1


SVAMP = Task(
    name="svamp",
    folder="svamp",
    hub=("ChilleD/SVAMP", None),
    hub_splits={"train": "train", "test": "test"},
    files={split: (f"{split}.json", f"{split}.jsonl", "SVAMP.json") for split in ("train", "test")},
    read=_read,
    aliases=("ChilleD/SVAMP",),
)
