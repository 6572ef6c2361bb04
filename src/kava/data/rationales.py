"""Chains of thought that teachers wrote themselves, in files beside the data.

A row of such a .jsonl file, as `kava rationales` writes it:

    {"id": "a-1", "question": "…", "reasoning": {"big": "…", "small": "…"},
     "right": {"big": true, "small": false}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kava.data.files import rows_of
from kava.data.records import Record

FIELD = "teacher_reasoning"
"""Where a record keeps them, by label."""


def read_rationales(paths: Sequence[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """The question of each id, and the chains of thought by the teacher's label.

    Teachers may have written into files of their own: rows of one id are put together.

    Raises:
        OSError: no such file.
        ValueError: a row of another form, or two rows of one id with different questions or
            with a teacher in common.
    """
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for path in paths:
        check_rationales(path)
        for row in rows_of([Path(path)], ()):
            name, question, texts = (row.fields.get(key) for key in ("id", "question", "reasoning"))
            if not isinstance(texts, Mapping) or not all(
                isinstance(part, str) for part in (name, question, *texts.values())
            ):
                raise ValueError(
                    f"{row.where} is no row of kava rationales: it needs the texts id and "
                    f"question, and reasoning as an object of texts by teacher"
                )
            known, earlier = found.get(str(name), (question, {}))
            if known != question:
                raise ValueError(
                    f"{row.where} has the id {name!r} of an earlier row with another question: "
                    f"name the files of one data set"
                )
            if twice := sorted(set(earlier) & set(texts)):
                raise ValueError(
                    f"{row.where} has a second chain of thought of teacher {twice[0]} for the id "
                    f"{name!r}: name each file once"
                )
            found[str(name)] = str(question), {**earlier, **texts}
    return found


def check_rationales(path: str) -> None:
    """Refuse a file that is not there.

    Raises:
        OSError: it is not.
    """
    if not Path(path).is_file():
        raise OSError(f"--teacher_reasoning {path} is not there: write it by kava rationales")


def with_rationales(
    records: Sequence[Record], found: Mapping[str, tuple[str, Mapping[str, str]]]
) -> list[Record]:
    """Records with the chains of thought that teachers wrote for them, where there are any.

    Raises:
        ValueError: one that was written for another question of the same id.
    """
    given: list[Record] = []
    for record in records:
        question, texts = found.get(record.id, (record.question, {}))
        if question != record.question:
            raise ValueError(
                f"{record.named} has another question than --teacher_reasoning has under its id "
                f"({question[:40]!r}): write the file for these data"
            )
        meta: dict[str, Any] = {**record.meta, FIELD: texts} if texts else dict(record.meta)
        given.append(replace(record, meta=meta))
    return given
