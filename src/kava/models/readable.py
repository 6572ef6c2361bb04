"""Check texts against a model's limits: positions, and tokens with embeddings.

Both are known before weights are loaded. A text beyond them would fail with an index error in the
middle of a run, so every command checks its data when they are encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kava.data.encoded import DoesNotFit, Encoded, EncodeReport, Side
from kava.models.limits import positions_of, table_of_positions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Limits:
    """The limits of one model.

    Attributes:
        name: name of the model in messages.
        num_tokens: rows of its embedding table.
        positions: number of positions in its configuration; None if it names none.
        table: rows of its position table; None without a table, which means no limit.
    """

    name: str
    num_tokens: int
    positions: int | None
    table: int | None

    @classmethod
    def of(cls, name: str, config: PreTrainedConfig) -> Limits:
        """The limits of a model, from the configuration of its text part.

        Example:
            >>> Limits.of("kava/tiny-gpt2", load_model_config("kava/tiny-gpt2")).table
            2048
        """
        return cls(name, config.vocab_size, positions_of(config), table_of_positions(config))

    def unknown_token(self, ids: Sequence[int] | np.ndarray) -> str | None:
        """Why the tokens of a text cannot be read; None if they can.

        Example:
            >>> Limits("gpt2", 50257, 1024, 1024).unknown_token([464, 50256]) is None
            True
        """
        most = int(np.max(ids, initial=-1))
        if most < self.num_tokens:
            return None
        return (
            f"the token id {most}, but {self.name!r} has {self.num_tokens} embeddings: its "
            f"tokenizer is larger than the model; resize the model by "
            f"model.resize_token_embeddings(len(tokenizer)) and save it"
        )

    def too_long(self, length: int) -> bool:
        """Whether a text of `length` positions exceeds the position table."""
        return self.table is not None and length > self.table


def fitting(
    samples: Sequence[Encoded],
    student: Limits,
    teacher: Limits | None,
    overflow: str,
    *,
    thought: int | None = None,
    report: EncodeReport | None = None,
) -> list[Encoded]:
    """The samples that both models can read; others raise an error, or are skipped and counted.

    Args:
        samples: encoded texts.
        student: limits of the model that reads their `input_ids`.
        teacher: limits of the model that reads its own tokens, if the samples have them.
        overflow: as in `kava.data.encode.encode_records`.
        thought: number of positions that a latent student has between prompt and answer instead of
            the reasoning; None for other students.
        report: receives the skipped samples.

    Raises:
        DoesNotFit: under "error", the first sample that is too long.
        ValueError: a token that a model has no embedding for, or no sample is left.

    Example:
        >>> samples = fitting(samples, Limits.of("gpt2", GPT2Config()), None, "skip")
    """
    chosen = []
    for sample in samples:
        try:
            _check(sample, student, teacher, thought)
        except DoesNotFit as problem:
            if overflow == "error":
                raise
            if report is not None:
                report.skipped[problem.reason].append(sample.id)
            continue
        chosen.append(sample)
    if samples and not chosen:
        names = " and ".join(repr(one.name) for one in (student, teacher) if one is not None)
        raise ValueError(
            f"no sample fits the positions of {names}: lower --max_length, or take a model that "
            f"reads further"
        )
    return chosen


def fitting_sides(
    samples: Sequence[Encoded], readers: Sequence[Limits], overflow: str
) -> list[Encoded]:
    """Samples without the texts that one of several teachers cannot read.

    Args:
        samples: encoded texts, with what each teacher reads.
        readers: limits of the teachers.
        overflow: "error" raises at the first text; under "skip" the other teachers teach it.

    Raises:
        DoesNotFit: under "error", the first text that is too long.
        ValueError: a token that a teacher has no embedding for, or no sample is left.
    """
    kept = []
    for sample in samples:
        sides = []
        for side, reader in zip(sample.sides, readers):
            texts = [text.encoded.input_ids for text in (side.text, side.own) if text is not None]
            long = False
            for ids in (texts or [sample.input_ids]) if side.present else []:
                if (unknown := reader.unknown_token(ids)) is not None:
                    raise ValueError(f"sample {sample.id!r} has {unknown}")
                if not reader.too_long(len(ids)):
                    continue
                if overflow == "error":
                    raise _too_long(sample, f"{len(ids)} tokens", reader)
                long = True
            sides.append(Side(present=False) if long else side)
        if any(side.present for side in sides):
            kept.append(replace(sample, sides=tuple(sides)))
    if samples and not kept:
        raise ValueError("no sample fits the positions of any teacher: lower --max_length")
    return kept


def _check(sample: Encoded, student: Limits, teacher: Limits | None, thought: int | None) -> None:
    theirs = sample.input_ids if sample.teacher is None else sample.teacher.encoded.input_ids
    for reader, ids in ((student, sample.input_ids), (teacher, theirs)):
        if reader is None:
            continue
        unknown = reader.unknown_token(ids)
        if unknown is not None:
            raise ValueError(f"sample {sample.id!r} has {unknown}")
        if reader.too_long(len(ids)):
            raise _too_long(sample, f"{len(ids)} tokens", reader)
    if thought is None:
        return
    prompt, answer = len(sample.prompt_ids), len(sample.input_ids) - sample.answer_start
    if student.too_long(prompt + thought + answer - 1):  # the last token is only predicted
        parts = f"a prompt of {prompt} tokens, {thought} latent positions and an answer of {answer}"
        raise _too_long(sample, parts, student)


def _too_long(sample: Encoded, what: str, reader: Limits) -> DoesNotFit:
    return DoesNotFit(
        "longer than a model's positions",
        f"sample {sample.id!r} has {what}, more than the {reader.table} positions of "
        f"{reader.name!r}; pass --overflow skip, or a model that reads further",
    )
