"""Rows of a file, and how a row's fields become a record.

Every malformed row is named by its file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kava.data.records import Record
from kava.segments import OnMissing, SegmentIdentifier

ReasoningForm = Literal["text", "annotated", "equations"]

_ANNOTATION = re.compile(r"<<([^<>]*)>>")


@dataclass(frozen=True)
class RowReader:
    """From a row's fields to a record; `where` names the row in messages.

    The fields are as the arguments of `kava.data.sources.load_records`.
    """

    question_field: str = "question"
    reasoning_field: str = "reasoning"
    answer_field: str = "answer"
    reasoning_form: ReasoningForm = "text"
    step_separator: str = "\n"
    text_field: str | None = None
    identifier: SegmentIdentifier = field(default_factory=SegmentIdentifier)
    on_missing: OnMissing = "error"

    def read(self, row: Mapping[str, Any], default_id: str, where: str) -> Record:
        """The record of a row.

        Args:
            row: a row's fields.
            default_id: the record's name, where the row has no `id`.
            where: file and line, for messages.

        Raises:
            ValueError: a missing field, one that is no text, or a text without its markers.
        """
        student = row.get("student_question")
        missing: tuple[str, ...] = ()
        if self.text_field is not None or ("text" in row and self.question_field not in row):
            text = text_of(row, self.text_field or "text", where)
            question, reasoning, answer, missing = self._split(text, None, where)
        else:
            question = text_of(row, self.question_field, where)
            answer = text_of(row, self.answer_field, where)
            if self.reasoning_field in row:
                reasoning = text_of(row, self.reasoning_field, where)
            else:
                prompt = question + "\n"
                _, reasoning, answer, missing = self._split(prompt + answer, prompt, where)
        separator = self.step_separator
        if self.reasoning_form == "equations":
            separator = " "
            reasoning = " ".join(
                f"<<{equation.replace(' ', '')}>>" for equation in _ANNOTATION.findall(reasoning)
            )
        elif self.reasoning_form == "text":
            reasoning = _ANNOTATION.sub("", reasoning)
        return Record(
            id=str(row.get("id", default_id)),
            question=question,
            reasoning=reasoning,
            answer=answer,
            student_question=None if student is None else text_of(row, "student_question", where),
            step_separator=separator,
            missing=missing,
        )

    def _split(
        self, text: str, prompt: str | None, where: str
    ) -> tuple[str, str, str, tuple[str, ...]]:
        """Question, reasoning and answer of a text, and those that were not found."""
        spans = self.identifier.identify(text, prompt=prompt)
        if spans.missing and self.on_missing == "error":
            parts = " and ".join(spans.missing)
            raise ValueError(
                f"{where}: no marker of the {parts} is found in its text; give the markers it uses "
                f"(reasoning_triggers, answer_triggers), or a field of its own for each part"
                if prompt is None
                else f"{where} has no field {self.reasoning_field!r}, and its "
                f"{self.answer_field!r} holds no reasoning followed by a marker such as '#### 72'; "
                f"give the markers it uses (answer_triggers)"
            )
        return (
            text[: spans.reasoning_start].strip(),
            text[spans.reasoning_start : spans.answer_start].strip(),
            text[spans.value_start :].strip(),
            spans.missing,
        )


def text_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field of a row as text, without blanks around it.

    Raises:
        ValueError: it is missing, or neither text nor a number.
    """
    if name not in row:
        raise ValueError(
            f"{where} has no field {name!r} (it has {', '.join(map(repr, row))}); name the "
            f"field it uses"
        )
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: field {name!r} must be text, got {value!r:.40}")
    return str(value).strip()


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The line number and the row of every line of a .jsonl file that is not blank.

    Raises:
        ValueError: a line that is no UTF-8 text, no JSON, or no object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as problem:
                raise ValueError(f"{path}, line {number} is not UTF-8 text") from problem
            except json.JSONDecodeError as problem:
                # a row is one line, so that its own line number would mislead
                where = f"{problem.msg}, at character {problem.colno}"
                raise ValueError(f"{path}, line {number} is not JSON: {where}") from problem
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} must be a JSON object, got {row!r:.40}")
            yield number, row
