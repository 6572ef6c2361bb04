"""ARC, easy and challenge: science questions with lettered choices, without reasoning.

Clark et al., arXiv 1803.05457. The question ends with its choices, `A. …`, one per line, and the
answer is a letter; `meta["choices"]` stores the choices' texts, so that an answer in full is also
recognised. Choices are lettered by position, even if the source numbers them.
"""

from __future__ import annotations

from functools import partial

from kava.data.closed_answers import LETTERS
from kava.data.fields import Row, field_of, id_of, text_of, texts_of
from kava.data.records import Record
from kava.data.rows import RowReader
from kava.data.tasks.base import Task


def lettered(question: str, choices: list[str]) -> str:
    """A question with its choices below it.

    Example:
        >>> print(lettered("Which is wet?", ["sand", "rain"]))
        Which is wet?
        A. sand
        B. rain
    """
    return "\n".join([question, *(f"{a}. {text}" for a, text in zip(LETTERS, choices))])


def _read(task: str, row: Row, name: str, where: str, reader: RowReader) -> Record:
    if "answerKey" in row:  # rows from the hub
        found = field_of(row, "choices", dict, where)
        choices, labels = (
            texts_of(found.get(part), f"{where}: {part!r} of field 'choices'")
            for part in ("text", "label")
        )
        question, key = text_of(row, "question", where), text_of(row, "answerKey", where)
        gold = labels.index(key) if key in labels else -1
    else:
        choices = texts_of(field_of(row, "choices", list, where), f"{where}: field 'choices'")
        question = text_of(row, "query", where).removeprefix("Question:").strip()
        key = gold = field_of(row, "gold", int, where)
    if not 0 <= gold < len(choices) <= len(LETTERS):
        raise ValueError(f"{where}: its answer {key!r} is none of its {len(choices)} choices")
    return Record(
        id=id_of(row, name, where, prefix=f"{task}-"),
        question=lettered(question, choices),
        reasoning="",
        answer=LETTERS[gold],
        meta={"choices": tuple(choices)},
        where=where,
    )


def _arc(name: str, configuration: str) -> Task:
    whole = tuple(f"{name}.{suffix}" for suffix in ("jsonl", "json"))
    return Task(
        name=name,
        folder="arc",
        hub=("allenai/ai2_arc", configuration),
        hub_splits={"train": "train", "valid": "validation", "test": "test"},
        files={"test": whole, "train": (f"{name}_train.jsonl", *whole)},
        read=partial(_read, name),
        reasons=False,
    )


ARC_EASY = _arc("arc_easy", "ARC-Easy")
ARC_CHALLENGE = _arc("arc_challenge", "ARC-Challenge")
