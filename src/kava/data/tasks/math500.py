"""MATH-500: 500 problems of competition mathematics, with answers in LaTeX.

Lightman et al., arXiv 2305.20050, from MATH by Hendrycks et al., arXiv 2103.03874. The reasoning is
the row's solution, whose last sentence states the answer in a box. Answers are compared as
normalised LaTeX (`kava.data.latex`), which is no algebra: `1+x` is not `x+1`.
"""

from __future__ import annotations

from kava.data.fields import Row, id_of, text_of
from kava.data.latex import LATEX
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    return Record(
        id=id_of(row, name, where, name="unique_id", prefix="math500-"),
        question=text_of(row, "problem", where),
        reasoning=text_of(row, "solution", where),
        answer=text_of(row, "answer", where),
        where=where,
    )


MATH500 = Task(
    name="math500",
    folder="math500",
    hub=("HuggingFaceH4/MATH-500", None),
    hub_splits={"test": "test"},
    files={"test": ("test.jsonl", "math500.jsonl")},
    read=_read,
    aliases=("HuggingFaceH4/MATH-500",),
    judge=LATEX,
)
