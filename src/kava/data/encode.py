"""Encode records as token ids with segments; records that do not fit are errors or counted.

The whole text is tokenised once and segments follow from the character offsets: parts are not
tokenised separately and joined, which would give unusual tokens at the joints. The tokens of the
prompt alone, which the student gets, must then be a prefix of the whole.

Shapes: T tokens of a sample, with the end-of-sequence token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kava.data.encoded import UNKNOWN_TOKEN, DoesNotFit, Encoded, EncodeReport, Overflow
from kava.data.records import Record, Template
from kava.data.special_tokens import TAKEN, SpecialTokens, fields_of, warn_of_special
from kava.data.text_tokens import tokenize, unknown_text
from kava.segments import token_segments
from kava.trace import Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CHUNK = 1024

logger = logging.getLogger(__name__)


def encode(
    record: Record,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
    *,
    target_len: int | None = None,
) -> Encoded:
    """Encode one record.

    Arguments: as `encode_records`.

    Raises:
        DoesNotFit: the record cannot be used; a `ValueError` with the reason.
        ValueError: a tokenizer without offsets or without an end-of-sequence token.

    Example:
        >>> encode(records[0], tokenizer, Template(), 512).segment_ids[-1]
        np.int64(2)
    """
    (result,) = _encode_chunk([record], tokenizer, template, max_length, target_len)
    if isinstance(result, DoesNotFit):
        raise result
    return result


def encode_records(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
    *,
    target_len: int | None = None,
    overflow: Overflow = "error",
    answer_alone: bool = False,
) -> tuple[list[Encoded], EncodeReport]:
    """Encode records; those that do not fit raise an error, or are skipped and counted.

    Nothing is truncated, since a truncated sample would lose its answer.

    Args:
        records: the records to encode.
        tokenizer: a fast tokenizer, for its offsets.
        template: how a record becomes text.
        max_length: maximum tokens of a sample, with the end-of-sequence token.
        target_len: M, minimum reasoning tokens of a sample; None means one.
        overflow: "error" raises at the first record that does not fit, "skip" skips it.
        answer_alone: accept records of tasks without a chain of thought, such as ARC: only their
            answer is learned, and no position is kept.

    Returns:
        the encoded samples, and a report of skipped records.

    Raises:
        DoesNotFit: under "error", the first record that does not fit.
        ValueError: no record fits; no records; a tokenizer without offsets or end of sequence.

    Example:
        >>> encoded, report = encode_records(records, tokenizer, Template(), 512, overflow="skip")
        >>> report.num_encoded
        20
    """
    if overflow not in ("error", "skip"):
        raise ValueError(f"overflow={overflow!r} is unknown; choose error or skip")
    if not records:
        raise ValueError("there are no records to encode")
    encoded: list[Encoded] = []
    report = EncodeReport()
    for start in range(0, len(records), CHUNK):
        chunk = records[start : start + CHUNK]
        results = _encode_chunk(chunk, tokenizer, template, max_length, target_len, answer_alone)
        for record, result in zip(chunk, results):
            report.num_records += 1
            if isinstance(result, Encoded):
                encoded.append(result)
                report.num_tokens += len(result.input_ids)
            elif overflow == "error":
                raise result
            else:
                report.skipped[result.reason].append(record.id)
    if not encoded:
        raise ValueError(f"no record fits: {report}")
    if report.skipped:
        logger.warning("%s", report)
    kept = {item.id for item in encoded}
    warn_of_special([r for r in records if r.id in kept], SpecialTokens.of(tokenizer, template))
    return encoded, report


def encode_prompt(
    question: str, tokenizer: PreTrainedTokenizerBase, template: Template
) -> list[int]:
    """The tokens of a prompt, as the student gets it in training.

    Raises:
        ValueError: an empty question, a word unknown to the tokenizer, or text that would be read
            as a special token.

    Example:
        >>> ids = encode_prompt("How many?", tokenizer, Template())
    """
    if not question.strip():
        raise ValueError("the question is empty")
    text = template.prompt(question)
    special = SpecialTokens.of(tokenizer, template)
    (item,) = tokenize([text], tokenizer, marks=special.in_template)
    if (mark := special.taken([question], [item])) is not None:
        raise ValueError(f"the question {question!r:.60} holds {mark!r}, {TAKEN}")
    unknown = unknown_text(item, text, tokenizer)
    if unknown is not None:
        raise ValueError(f"the tokenizer does not know {unknown!r}, in the question {question!r}")
    return item.ids


def _encode_chunk(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
    target_len: int | None,
    answer_alone: bool = False,
) -> Iterator[Encoded | DoesNotFit]:
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{tokenizer.name_or_path or type(tokenizer).__name__} has no end-of-sequence token: "
            f"set tokenizer.eos_token"
        )
    rendered = [template.render(record) for record in records]
    special = SpecialTokens.of(tokenizer, template)
    read = partial(tokenize, tokenizer=tokenizer, marks=special.in_template)
    texts, prompts = read([r.text for r in rendered]), read([r.prompt for r in rendered])
    own = [i for i, record in enumerate(records) if record.student_question is not None]
    student = dict(zip(own, read([rendered[i].student_prompt for i in own])))
    for index, (record, text, whole, prompt) in enumerate(zip(records, rendered, texts, prompts)):
        try:
            bare = answer_alone and not record.reasoning.strip()
            _check_parts(record, template, bare)
            segments = token_segments(
                np.array(whole.offsets), text.reasoning_start, text.answer_start
            )
            ends = np.array(whole.offsets)[:, 1]
            prompt_length = int((segments == Segment.PROMPT).sum())
            answer_start = int((segments < Segment.ANSWER).sum())
            value_start = int((ends <= text.value_start).sum())
            items = [(whole, text.text)]
            items += [(student[index], text.student_prompt)] if index in student else []
            mark = special.taken(fields_of(record), [item for item, _ in items])
            if mark is not None:
                raise DoesNotFit(
                    "special token",
                    f"{record.named} holds {mark!r}, {TAKEN} or pass --overflow skip",
                )
            for item, written in items:
                unknown = unknown_text(item, written, tokenizer)
                if unknown is not None:
                    raise DoesNotFit(
                        UNKNOWN_TOKEN,
                        f"{record.named} has {unknown!r}, which the tokenizer does not know; "
                        f"mend it or pass --overflow skip",
                    )
            if prompt.ids != whole.ids[:prompt_length]:
                raise DoesNotFit(
                    "prompt boundary",
                    f"{record.named}: its prompt alone has other tokens than in its text, "
                    f"where a token runs across its end {text.prompt[-12:]!r}; end the question "
                    f"template with a line break or pass --overflow skip",
                )
            num_reasoning = answer_start - prompt_length
            fewest = 0 if bare else target_len or 1
            _check_lengths(record.named, len(whole.ids) + 1, num_reasoning, max_length, fewest)
        except DoesNotFit as problem:
            yield problem
            continue
        yield Encoded(
            id=record.id,
            input_ids=np.array([*whole.ids, tokenizer.eos_token_id], dtype=np.int32),
            prompt_length=prompt_length,
            answer_start=answer_start,
            value_start=value_start,
            student_prompt_ids=np.array(student[index].ids, dtype=np.int32)
            if index in student
            else None,
            offsets=np.array([*whole.offsets, (len(text.text),) * 2], dtype=np.int32),
        )


def _check_parts(record: Record, template: Template, bare: bool) -> None:
    if record.missing:
        raise DoesNotFit(
            "segments not found",
            f"{record.named}: no marker of the {' and '.join(record.missing)} is found in "
            f"its text; give the markers it uses by --reasoning_triggers and --answer_triggers, or "
            f"pass --overflow skip",
        )
    own = record.student_question
    if not record.question.strip() or (own is not None and not own.strip()):
        raise DoesNotFit(
            "empty question", f"{record.named} has an empty question; pass --overflow skip"
        )
    if not record.answer.strip():
        raise DoesNotFit(
            "empty answer", f"{record.named} has an empty answer; pass --overflow skip"
        )
    if not bare and not template.written_reasoning(record):
        steps = len(record.steps)
        mend = "turn drop_last_step off" if steps else "learn its answer alone by --keep_short"
        dropped = "" if not steps else f" once the last of its {steps} step(s) is dropped"
        raise DoesNotFit(
            "empty reasoning",
            f"{record.named} has no reasoning{dropped}; {mend} or pass --overflow skip",
        )


def _check_lengths(
    name: str, length: int, num_reasoning: int, max_length: int, fewest: int
) -> None:
    if length > max_length:
        raise DoesNotFit(
            "longer than max_length",
            f"{name} has {length} tokens, more than --max_length {max_length}; raise it "
            f"or pass --overflow skip",
        )
    if num_reasoning < fewest:
        raise DoesNotFit(
            "reasoning shorter than target_len",
            f"{name} has {num_reasoning} reasoning tokens, fewer than --target_len "
            f"{fewest}; lower it or pass --overflow skip",
        )
