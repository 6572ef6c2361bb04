"""Turn the fields of a row into a record.

Errors name a malformed row by its file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kava.data.calculator import equations, strip_marks
from kava.data.fields import Row, id_of, optional_text, text_of
from kava.data.records import Record
from kava.data_settings import RowSettings
from kava.segments import OnMissing, SegmentIdentifier


class PlacedRow(NamedTuple):
    """A row of a file or of the hub.

    Attributes:
        number: index of the row in its file, from 0, or of its line if each line is a row.
        where: place of the row, for messages.
        fields: the fields by name.
    """

    number: int
    where: str
    fields: Row


@dataclass(frozen=True)
class RowReader:
    """Turns the fields of a row into a record; arguments as in `kava.data.sources.load_records`."""

    rows: RowSettings = field(default_factory=RowSettings)
    step_separator: str = "\n"
    on_missing: OnMissing = "error"
    identifier: SegmentIdentifier = field(init=False)
    """Finds the parts of a raw text."""

    def __post_init__(self) -> None:
        names = ("reasoning_triggers", "answer_triggers")
        given = {name: getattr(self.rows, name) for name in names}
        identifier = SegmentIdentifier(**{name: t for name, t in given.items() if t is not None})
        object.__setattr__(self, "identifier", identifier)

    def read(self, row: Row, default_id: str, where: str) -> Record:
        """Read the record of a row.

        Args:
            row: a row's fields.
            default_id: the record's id, if the row has none.
            where: file and line, for messages.

        Raises:
            ValueError: a missing field, a field that is not text, or a text without its markers.
        """
        rows = self.rows
        missing: tuple[str, ...] = ()
        if rows.text_field is not None or ("text" in row and rows.question_field not in row):
            text = text_of(row, rows.text_field or "text", where)
            question, reasoning, answer, missing = self._split(text, None, where)
        else:
            question = text_of(row, rows.question_field, where)
            answer = text_of(row, rows.answer_field, where)
            if rows.reasoning_field in row:
                reasoning = text_of(row, rows.reasoning_field, where)
            else:
                prompt = question + "\n"
                _, reasoning, answer, missing = self._split(prompt + answer, prompt, where)
        separator = self.step_separator
        if rows.reasoning_form == "equations":
            separator, reasoning = " ", equations(reasoning)
        elif rows.reasoning_form == "text":
            reasoning = strip_marks(reasoning)
        teacher_id = optional_text(row, "teacher_id", where)
        return Record(
            id=id_of(row, default_id, where),
            question=question,
            reasoning=reasoning,
            answer=answer,
            student_question=optional_text(row, "student_question", where),
            step_separator=separator,
            missing=missing,
            meta={} if teacher_id is None else {"teacher_id": teacher_id},
            where=where,
        )

    def _split(
        self, text: str, prompt: str | None, where: str
    ) -> tuple[str, str, str, tuple[str, ...]]:
        """Question, reasoning and answer of a text, and the names of missing parts."""
        rows, spans = self.rows, self.identifier.identify(text, prompt=prompt)
        if spans.missing and self.on_missing == "error":
            parts = " and ".join(spans.missing)
            raise ValueError(
                f"{where}: no marker of the {parts} is found in its text; give the markers it uses "
                f"(reasoning_triggers, answer_triggers), or a field of its own for each part"
                if prompt is None
                else f"{where} has no field {rows.reasoning_field!r}, and its "
                f"{rows.answer_field!r} holds no reasoning followed by a marker such as '#### 72'; "
                f"give the markers it uses (answer_triggers)"
            )
        return (
            text[: spans.reasoning_start].strip(),
            text[spans.reasoning_start : spans.answer_start].strip(),
            text[spans.value_start :].strip(),
            spans.missing,
        )


def read_rows(
    rows: Iterable[PlacedRow], read: Callable[[PlacedRow], Record], source: str, task: str = ""
) -> list[Record]:
    """Read the records of rows, and check that ids are unique.

    Args:
        rows: rows of one source.
        read: turns a row into a record.
        source: name of the source, for messages.
        task: name of the task, for messages.

    Raises:
        ValueError: two rows with the same id, or no rows.
    """
    records: list[Record] = []
    places: dict[str, str] = {}
    for row in rows:
        record = read(row)
        if record.id in places:
            earlier = places[record.id].removeprefix(f"{source}, ")
            raise ValueError(f"{row.where} has the id {record.id!r} of {earlier}")
        places[record.id] = row.where
        records.append(record)
    if not records:
        whose = f" of {task}" if task else ""
        raise ValueError(f"{source} is empty: it holds no row{whose}")
    return records
