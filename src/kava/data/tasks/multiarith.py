"""MultiArith: arithmetic word problems of two steps or more.

Roy and Roth, arXiv 1608.01413. Rows of the hub have a question and its `final_ans`; the original
file, MultiArith.json, has `sQuestion` and `lSolutions`. Neither has reasoning in words.
"""

from __future__ import annotations

from kava.data.fields import Row, field_of, id_of, text_of, texts_of, whole
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    if "sQuestion" in row:  # the original file
        question = text_of(row, "sQuestion", where)
        values = field_of(row, "lSolutions", list, where)
        if len(values) != 1:
            raise ValueError(f"{where}: 'lSolutions' must hold one number, got {len(values)}")
        (answer,) = texts_of(values, f"{where}: field 'lSolutions'")
    else:
        question, answer = text_of(row, "question", where), text_of(row, "final_ans", where)
    return Record(
        id=id_of(row, name, where, name="iIndex", prefix="multiarith-"),
        question=question,
        reasoning="",
        answer=whole(answer),
        where=where,
    )


MULTIARITH = Task(
    name="multiarith",
    folder="multiarith",
    hub=("ChilleD/MultiArith", None),
    hub_splits={"train": "train", "test": "test"},
    files={
        split: (f"{split}.json", f"{split}.jsonl", "MultiArith.json") for split in ("train", "test")
    },
    read=_read,
    reasons=False,
    aliases=("ChilleD/MultiArith",),
)
