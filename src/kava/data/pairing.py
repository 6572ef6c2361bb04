"""Encode samples for a teacher with another tokenizer.

Such a teacher reads its own tokenization of the record. Each sample then has this second encoding,
and the teacher tokens that each of its tokens covers.

Shapes: T_s tokens of the student's text, T_t of the teacher's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kava.align import TokenAlignment
from kava.align.tokens.overlap import align_many, unaligned
from kava.data.encode import encode_records
from kava.data.encoded import DoesNotFit, Encoded, EncodeReport, Overflow, Side, TeacherText
from kava.data.rationales import FIELD
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
    own: Template | None = None,
) -> tuple[list[Encoded], EncodeReport]:
    """Add the teacher's tokens to encoded samples.

    Args:
        records: the records of the samples, possibly with others, matched by id.
        encoded: the samples in the student's tokens.
        tokenizer: the teacher's tokenizer, a fast one.
        template: turns a record into text for the student.
        max_length: maximum tokens of the teacher's text.
        target_len: minimum reasoning tokens of the teacher's text.
        overflow: as in `encode_records`.
        answer_alone: as in `encode_records`.
        own: the teacher's template, which differs in the prompt alone; None: the same.

    Returns:
        the samples whose teacher text also fits, and a report of the others.

    Raises:
        DoesNotFit: under "error", the first record that does not fit.

    Example:
        >>> paired, _ = encode_for_teacher(records, encoded, teacher_tokenizer, Template(), 512)
        >>> paired[0].teacher.alignment.exact
        0.5
    """
    paired, (report,) = encode_for_teachers(
        records,
        encoded,
        [("", tokenizer, template if own is None else own)],
        template,
        max_length,
        target_len=target_len,
        overflow=overflow,
        answer_alone=answer_alone,
    )
    return [item.as_read_by(0) for item in paired], report


def encode_for_teachers(
    records: Sequence[Record],
    encoded: Sequence[Encoded],
    readers: Sequence[tuple[str, PreTrainedTokenizerBase | None, Template]],
    template: Template,
    max_length: int,
    *,
    target_len: int | None = None,
    overflow: Overflow = "error",
    answer_alone: bool = False,
) -> tuple[list[Encoded], list[EncodeReport]]:
    """Add what each of several teachers reads to encoded samples.

    Args:
        records: the records of the samples, possibly with others, matched by id.
        encoded: the samples in the student's tokens.
        readers: of each teacher its label, "" if it is the only one; its tokenizer, None where it
            reads the student's tokens; and its template, which differs from the student's in the
            prompt alone.
        template: the student's.
        max_length: maximum tokens of a teacher's text.
        target_len: minimum reasoning tokens of a teacher's text.
        overflow: "error" raises at the first sample that does not fit a teacher; under "skip" the
            others teach it alone.
        answer_alone: as in `encode_records`.

    Returns:
        the samples that fit a teacher or more, with `Encoded.sides`, and a report for each teacher.

    Raises:
        DoesNotFit: under "error", the first record that does not fit.
        ValueError: no sample is left.
    """
    by_id = {record.id: record for record in records}
    sides: list[list[Side]] = [[] for _ in encoded]
    reports: list[EncodeReport] = []
    read: dict[tuple[int, Template], int] = {}
    for n, (label, tokenizer, own) in enumerate(readers):
        if tokenizer is None:
            for row in sides:
                row.append(Side())
            reports.append(EncodeReport(num_records=len(encoded)))
            continue
        earlier = read.setdefault((id(tokenizer), own), n)
        if earlier != n:
            for row in sides:
                row.append(row[earlier])
            reports.append(reports[earlier])
            continue
        with _naming(label):
            theirs, report = encode_records(
                [by_id[item.id] for item in encoded],
                tokenizer,
                own,
                max_length,
                target_len=target_len,
                overflow=overflow,
                answer_alone=answer_alone,
            )
        found = {item.id: item for item in theirs}
        there = [item for item in encoded if item.id in found]
        align = align_texts if own.question == template.question else align_behind_prompts
        alignments = align(there, [found[item.id] for item in there])
        texts = {
            item.id: TeacherText(encoded=found[item.id], alignment=alignment)
            for item, alignment in zip(there, alignments)
        }
        for item, row in zip(encoded, sides):
            row.append(Side(present=item.id in texts, text=texts.get(item.id)))
        reports.append(report)
    return _with_sides(encoded, sides, "fits any of the teachers; raise --max_length"), reports


def with_own_reasoning(
    records: Sequence[Record],
    encoded: Sequence[Encoded],
    readers: Sequence[tuple[str, PreTrainedTokenizerBase, Template]],
    max_length: int,
    *,
    target_len: int | None = None,
    overflow: Overflow = "error",
) -> tuple[list[Encoded], list[EncodeReport]]:
    """Let each of several teachers read its own chain of thought of each sample.

    The gold answer stands behind it. A teacher without one, or whose chain of thought is empty,
    does not read the sample. Such a text shares no position with the student's.

    Args:
        records: the records of the samples, see `kava.data.rationales`.
        encoded: the samples with their sides.
        readers: label, tokenizer and template of each teacher.
        max_length: maximum tokens of a teacher's text.
        target_len: minimum reasoning tokens of it.
        overflow: "error" raises at the first that does not fit; under "skip" the others teach the
            sample alone.

    Returns:
        the samples that a teacher or more reads, and a report for each teacher.

    Raises:
        DoesNotFit: under "error", the first record that does not fit.
        ValueError: a teacher without any chain of thought, or no sample is left.
    """
    by_id = {record.id: record for record in records}
    sides = [list(item.sides) for item in encoded]
    reports = []
    for n, (label, tokenizer, template) in enumerate(readers):
        written = [
            replace(by_id[item.id], reasoning=text, states_answer=False, student_question=None)
            for item in encoded
            if item.sides[n].present and (text := by_id[item.id].meta.get(FIELD, {}).get(label))
        ]
        if not written:
            raise ValueError(
                f"--teacher_reasoning has no chain of thought of teacher {label} for any of the "
                f"samples, such as {encoded[0].id!r}: write them by kava rationales, under the "
                f"same labels, and for the split that is evaluated too"
            )
        with _naming(label):
            theirs, report = encode_records(
                written, tokenizer, template, max_length, target_len=target_len, overflow=overflow
            )
        found = {item.id: item for item in theirs}
        for item, row in zip(encoded, sides):
            own = found.get(item.id)
            text = (
                None
                if own is None
                else TeacherText(encoded=own, alignment=unaligned(len(item.input_ids)))
            )
            row[n] = replace(row[n], present=text is not None, own=text)
        reports.append(report)
    return _with_sides(encoded, sides, "has a chain of thought of any of the teachers"), reports


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Say whose text does not fit: the student's own may."""
    try:
        yield
    except DoesNotFit as problem:
        whose = f"teacher {label}" if label else "the teacher's tokens"
        raise DoesNotFit(problem.reason, f"{whose}: {problem}") from None


def _with_sides(
    encoded: Sequence[Encoded], sides: Sequence[Sequence[Side]], lacks: str
) -> list[Encoded]:
    """The samples that a teacher or more reads, with their sides.

    Raises:
        ValueError: there is none; the message says what no sample does.
    """
    kept = [
        replace(item, sides=tuple(row))
        for item, row in zip(encoded, sides)
        if any(side.present for side in row)
    ]
    if not kept:
        raise ValueError(f"no sample {lacks}")
    return kept


def align_texts(ours: Sequence[Encoded], theirs: Sequence[Encoded]) -> list[TokenAlignment]:
    """The teacher tokens that the student's tokens cover, of samples with one text."""
    return align_many([item.offsets for item in ours], [item.offsets for item in theirs])


def align_behind_prompts(
    ours: Sequence[Encoded], theirs: Sequence[Encoded]
) -> list[TokenAlignment]:
    """The same, of samples whose prompts differ: a prompt's tokens read the end of the other's."""

    def rest(item: Encoded) -> np.ndarray:
        offsets = item.offsets[item.prompt_length :].astype(np.int64)
        return offsets - offsets[0, 0]

    found = align_many([rest(item) for item in ours], [rest(item) for item in theirs])
    return [
        _behind(alignment, own.prompt_length, their.prompt_length)
        for alignment, own, their in zip(found, ours, theirs)
    ]


def _behind(alignment: TokenAlignment, own: int, their: int) -> TokenAlignment:
    """An alignment of what follows the prompts, with the prompts before it."""
    prompt = np.full(own, their - 1, dtype=np.int64)
    return TokenAlignment(
        last=np.concatenate([prompt, alignment.last + their]),
        indptr=np.concatenate([np.arange(own), alignment.indptr + own]),
        indices=np.concatenate([prompt, alignment.indices + their]),
        weights=np.concatenate([np.ones(own), alignment.weights]),
        num_teacher_tokens=alignment.num_teacher_tokens + their,
        exact=alignment.exact,
    )
