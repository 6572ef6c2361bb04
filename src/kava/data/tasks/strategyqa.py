"""StrategyQA: yes/no questions whose reasoning steps are implicit.

Geva et al., arXiv 2101.02235. The reasoning is the row's **facts**: they are statements, and both
the original file and the hub's copy have them. The decomposition consists of unanswered questions
and is not used. No fact states the answer, so there is no last step to drop.

The labels of the original test split are not public: "test" is dev.json, or on the hub the held-out
part of its copy.
"""

from __future__ import annotations

from kava.data.fields import Row, as_text, field_of, id_of, text_of, texts_of
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def _read(row: Row, name: str, where: str, reader: RowReader) -> Record:
    facts = field_of(row, "facts", (list, str), where)
    what = f"{where}: field 'facts'"
    return Record(
        id=id_of(row, name, where, name="qid", prefix="strategyqa-"),
        question=text_of(row, "question", where),
        reasoning="\n".join(
            texts_of(facts, what) if isinstance(facts, list) else [as_text(facts, what)]
        ),
        answer="yes" if field_of(row, "answer", bool, where) else "no",
        states_answer=False,
        where=where,
    )


STRATEGYQA = Task(
    name="strategyqa",
    folder="strategyqa",
    hub=("ChilleD/StrategyQA", None),
    hub_splits={"train": "train", "test": "test"},
    files={
        "train": ("train.json", "train.jsonl"),
        "test": ("dev.json", "test.json", "dev.jsonl", "test.jsonl"),
    },
    read=_read,
    aliases=("ChilleD/StrategyQA",),
)
