"""Encode samples for a teacher with another tokenizer.

Such a teacher reads its own tokenization of the record. Each sample then has this second encoding,
and the teacher tokens that each of its tokens covers.

Shapes: T_s tokens of the student's text, T_t of the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kava.align.tokens.overlap import align_many
from kava.data.encode import encode_records
from kava.data.encoded import Encoded, EncodeReport, Overflow, TeacherText
from kava.data.records import Record, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_for_teacher(
    records: Sequence[Record],
    encoded: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
    *,
    target_len: int | None = None,
    overflow: Overflow = "error",
    answer_alone: bool = False,
) -> tuple[list[Encoded], EncodeReport]:
    """Add the teacher's tokens to encoded samples.

    Args:
        records: the records of the samples, possibly with others, matched by id.
        encoded: the samples in the student's tokens.
        tokenizer: the teacher's tokenizer, a fast one.
        template: turns a record into text, the same for both.
        max_length: maximum tokens of the teacher's text.
        target_len: minimum reasoning tokens of the teacher's text.
        overflow: as in `encode_records`.
        answer_alone: as in `encode_records`.

    Returns:
        the samples whose teacher text also fits, and a report of the others.

    Raises:
        DoesNotFit: under "error", the first record that does not fit.

    Example:
        >>> paired, _ = encode_for_teacher(records, encoded, teacher_tokenizer, Template(), 512)
        >>> paired[0].teacher.alignment.exact
        0.5
    """
    by_id = {record.id: record for record in records}
    theirs, report = encode_records(
        [by_id[item.id] for item in encoded],
        tokenizer,
        template,
        max_length,
        target_len=target_len,
        overflow=overflow,
        answer_alone=answer_alone,
    )
    ours = {item.id: item for item in encoded}
    pairs = [(ours[item.id], item) for item in theirs]
    alignments = align_many([item.offsets for item, _ in pairs], [item.offsets for item in theirs])
    paired = [
        replace(item, teacher=TeacherText(encoded=their, alignment=alignment))
        for (item, their), alignment in zip(pairs, alignments)
    ]
    return paired, report
