"""GSM8K: grade-school mathematics, with a solution in words and the answer after `####`.

Cobbe et al., arXiv 2110.14168.
"""

from __future__ import annotations

from kava.data.fields import Row
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    return reader.read(row, name, where)


GSM8K = Task(
    name="gsm8k",
    folder="gsm8k",
    hub=("openai/gsm8k", "main"),
    hub_splits={"train": "train", "test": "test"},
    files={"train": ("train.jsonl",), "test": ("test.jsonl",)},
    read=_read,
    aliases=("openai/gsm8k",),
)
