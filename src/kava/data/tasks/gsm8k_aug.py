"""GSM8K-Aug: problems like GSM8K's, augmented with a model, with equations as reasoning.

Deng et al., arXiv 2311.01460; the form that CODI and KaVa train on. Its test split is GSM8K's, and
its validation split is 500 rows of GSM8K's **train** split: do not select a model on one that was
trained on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kava.data.fields import Row, as_text, id_of, text_of, texts_of
from kava.data.records import Record
from kava.data.rows import PlacedRow, RowReader
from kava.data.tasks.base import Task
from kava.inputs import Malformed, text_lines


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    """Keep the equations in every form of reasoning, since there is nothing else."""
    if "steps" in row or "cot" in row:
        field = "steps" if "steps" in row else "cot"
        steps = row[field]
        what = f"{where}: field {field!r}"
        given = texts_of(steps, what) if isinstance(steps, list) else [as_text(steps, what)]
        reasoning = " ".join(given)
        answer = text_of(row, "answer", where)
    else:
        reasoning, marker, answer = text_of(row, "answer", where).rpartition("####")
        if not marker:
            raise ValueError(f"{where} has no answer behind '####', and no field 'steps' or 'cot'")
    return Record(
        id=id_of(row, name, where),
        question=text_of(row, "question", where),
        reasoning=reasoning.strip(),
        answer=answer.strip(),
        step_separator=" ",
        where=where,
    )


def _divided(path: Path) -> Iterator[PlacedRow]:
    """Parse lines of `question||reasoning #### answer`, the format of GSM8K-Aug's files."""
    for line, text in text_lines(path):
        question, bars, answer = text.partition("||")
        if not bars:
            raise Malformed(path, line, "must be question||reasoning #### answer")
        yield PlacedRow(line - 1, f"{path}, line {line}", {"question": question, "answer": answer})


GSM8K_AUG = Task(
    name="gsm8k_aug",
    folder="gsm8k_aug",
    hub=("whynlp/gsm8k-aug", None),
    hub_splits={"train": "train", "valid": "validation", "test": "test"},
    files={
        split: (f"{split}.txt", f"{split}.jsonl", f"{split}.json")
        for split in ("train", "valid", "test")
    },
    read=_read,
    formats={".txt": _divided},
    aliases=("whynlp/gsm8k-aug",),
)
