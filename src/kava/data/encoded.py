"""Data classes for encoded samples, and the reasons why records are skipped.

Shapes: T tokens of a sample, with the end-of-sequence token; T_s of the student's text, T_t of the
teacher's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from kava.align import TokenAlignment

Overflow = Literal["error", "skip"]
Reason = Literal[
    "segments not found",
    "empty question",
    "empty reasoning",
    "empty answer",
    "longer than max_length",
    "longer than a model's positions",
    "reasoning shorter than target_len",
    "prompt boundary",
    "unknown token",
    "special token",
]
UNKNOWN_TOKEN: Final = "unknown token"


class DoesNotFit(ValueError):  # noqa: N818
    """A sample that cannot be used; `reason` is a keyword, the message explains it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """One sample as tokens.

    Args:
        id: the record's id.
        input_ids: [T] int32, prompt + reasoning + answer + end of sequence.
        prompt_length: index of the first reasoning token.
        answer_start: index of the first answer token.
        value_start: index of the first token of the answer's value, after its cue.
        student_prompt_ids: the student's own prompt; None if it is the teacher's.
        positions: given kept positions, as indices into `input_ids`, or None.
        offsets: [T, 2] int32, the character range of each token in the record's text; empty for the
            end-of-sequence token.
        teacher: the text of a teacher with another tokenizer; None if it reads `input_ids`.
        scores: [R] float32, the teacher's score of each reasoning token (`kava.importance`), or
            None.
        before: the previous sample of the data set (`with_neighbours`), or None.
        sides: what each of several teachers reads of the sample; empty with one teacher.
        teacher_index: which of several teachers the data name for the sample, or None.
        counts: False for a copy that one of several processes reads where none is left for it.
        stored: its rows in the stores that stand for its teachers, −1 of one that does not read
            it; empty where teachers read at every step.
    """

    id: str
    input_ids: np.ndarray
    prompt_length: int
    answer_start: int
    value_start: int
    student_prompt_ids: np.ndarray | None = None
    positions: tuple[int, ...] | None = None
    offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))
    teacher: TeacherText | None = None
    scores: np.ndarray | None = None
    before: Encoded | None = None
    sides: tuple[Side, ...] = ()
    teacher_index: int | None = None
    counts: bool = True
    stored: tuple[int, ...] = ()

    @property
    def segment_ids(self) -> np.ndarray:
        """[T]: 0 prompt, 1 reasoning, 2 answer."""
        index = np.arange(len(self.input_ids))
        return (index >= self.prompt_length).astype(np.int64) + (index >= self.answer_start)

    @property
    def num_reasoning(self) -> int:
        """Number of reasoning tokens; 0 if only the answer is learned."""
        return self.answer_start - self.prompt_length

    def as_read_by(self, n: int) -> Encoded:
        """The sample as the n-th of several teachers reads it, as if it were the only one."""
        return replace(self, sides=(), teacher=self.sides[n].text) if self.sides else self

    @property
    def prompt_ids(self) -> np.ndarray:
        """The student's prompt."""
        if self.student_prompt_ids is not None:
            return self.student_prompt_ids
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherText:
    """The text of one sample in a teacher's tokens.

    Args:
        encoded: the record in the teacher's tokens.
        alignment: the teacher tokens that each student token covers, [T_s, T_t].
    """

    encoded: Encoded
    alignment: TokenAlignment


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """What one of several teachers reads of a sample.

    Args:
        present: whether it reads the sample at all.
        text: the sample in its own tokens; None where it reads the student's, or nothing.
        own: the sample with its own chain of thought, which it reads in place of `text` in
            training; maps are fitted on `text`, which the student reads too.
    """

    present: bool = True
    text: TeacherText | None = None
    own: TeacherText | None = None

    @property
    def read(self) -> TeacherText | None:
        """What it reads in training."""
        return self.text if self.own is None else self.own


@dataclass
class EncodeReport:
    """Number of encoded records, and the skipped ones with their reasons."""

    num_records: int = 0
    num_tokens: int = 0
    skipped: dict[Reason, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def num_skipped(self) -> int:
        """Number of skipped records."""
        return sum(map(len, self.skipped.values()))

    @property
    def num_encoded(self) -> int:
        """Number of encoded records."""
        return self.num_records - self.num_skipped

    def __str__(self) -> str:
        text = f"{self.num_encoded} of {self.num_records} records, {self.num_tokens} tokens"
        reasons = (
            f"{len(ids)} {reason} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"
            for reason, ids in sorted(self.skipped.items(), key=lambda item: -len(item[1]))
        )
        return text + ("; skipped: " + "; ".join(reasons) if self.skipped else "")
