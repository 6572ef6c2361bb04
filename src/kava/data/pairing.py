"""A sample as its teacher reads it: the same text through another tokenizer.

A teacher whose tokenizer is not the student's reads its own tokenization of the record. Each
sample then carries that second encoding, and which teacher tokens each of its tokens covers.

Shapes: T_s tokens of the student's text, T_t of the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kava.align import align_offsets
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
    """Give encoded samples what their teacher reads.

    Args:
        records: the records of the samples, and possibly others; matched by id.
        encoded: the samples in the student's tokens.
        tokenizer: the teacher's, a fast one.
        template: how a record becomes text, the same for both.
        max_length: most tokens of the teacher's text.
        target_len: the fewest reasoning tokens that the teacher's text must have.
        overflow: as in `encode_records`.
        answer_alone: as there.

    Returns:
        the samples whose teacher's text fits too, and the report of the others.

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
    paired = [
        replace(
            ours[item.id],
            teacher=TeacherText(
                encoded=item, alignment=align_offsets(ours[item.id].offsets, item.offsets)
            ),
        )
        for item in theirs
    ]
    return paired, report
