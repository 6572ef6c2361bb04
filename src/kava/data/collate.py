"""Collate encoded samples into batches, padded so that a slice separates the prompt.

The teacher's text is padded on both sides: the prompt on the left, so that all reasoning begins in
column P and the prompt's cache is the first P columns; the rest on the right.

Shapes: B batch, T columns of the text, P of a prompt, A of the answer, M kept positions; if the
teacher has another tokenizer, T_t columns of its text, W teacher tokens per student token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from kava.align.tokens.overlap import unaligned
from kava.data.encoded import Encoded, TeacherText
from kava.trace import Segment

IGNORED = -100
"""Label of a position that is not supervised, as in torch and transformers."""


class TeacherBatch(TypedDict):
    """The text of a teacher with another tokenizer, and its alignment to the student's tokens."""

    input_ids: Tensor
    attention_mask: Tensor
    segment_ids: Tensor
    teacher_codi: Tensor
    last: Tensor
    covered: Tensor
    shares: Tensor
    scores: NotRequired[Tensor]


class Batch(TypedDict):
    """A batch of the collator; masks and ids are int64."""

    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    segment_ids: Tensor
    labels: Tensor
    prompt_ids: Tensor
    prompt_mask: Tensor
    answer_ids: Tensor
    answer_mask: Tensor
    teacher_codi: Tensor
    student_codi: Tensor
    shared_prompt: bool
    positions: NotRequired[Tensor]
    scores: NotRequired[Tensor]
    teacher: NotRequired[TeacherBatch]
    before: NotRequired[Batch]
    sides: NotRequired[list[TeacherBatch | None]]
    first_reader: NotRequired[list[int]]
    present: NotRequired[Tensor]
    teacher_index: NotRequired[Tensor]
    counts: NotRequired[bool]
    stored: NotRequired[Tensor]


@dataclass(frozen=True)
class Collator:
    """Turns encoded samples into one batch; picklable, for data-loader workers.

    Padding is determined by the samples' lengths, never by the padding token, so that the end of
    sequence is supervised even if it is also the padding token.

    Args:
        pad_token_id: the padding token.
        teacher_pad_token_id: the padding token of a teacher's own text.
        neighbours: include the sample before the first one in every batch, not only in batches of
            one sample.
        pad_token_ids: the padding tokens of several teachers; None of one that reads the
            student's tokens.

    Example:
        >>> batch = Collator(tokenizer.pad_token_id)(encoded[:8])
    """

    pad_token_id: int
    teacher_pad_token_id: int | None = None
    neighbours: bool = False
    pad_token_ids: tuple[int | None, ...] = ()

    def __call__(self, samples: Sequence[Encoded]) -> Batch:
        """Make a batch.

        Returns:
            A dict of

            ids: sample ids.
            input_ids, attention_mask [B, T]: the teacher's text, prompt left-padded to P columns,
                reasoning and answer right-padded.
            segment_ids [B, T]: −1 at padding.
            labels [B, T]: `input_ids` at reasoning and answer, −100 elsewhere.
            prompt_ids, prompt_mask [B, P]: the student's prompt, left-padded.
            answer_ids, answer_mask [B, A]: cue, value and end, right-padded.
            teacher_codi [B]: the column of `input_ids` right before the answer's value.
            student_codi [B]: the same as an index into `answer_ids`; −1 if the value is first.
            shared_prompt: whether `input_ids[:, :P]` is `prompt_ids`.
            positions [B, M]: given kept columns of `input_ids`, if the samples have them.
            scores [B, T]: float32, zero outside the reasoning, if the samples have them.
            teacher: where the teacher has another tokenizer, its own `input_ids`,
                `attention_mask`, `segment_ids` [B, T_t] and `teacher_codi` [B]; with `last`
                [B, T], its column at which each column of `input_ids` is complete, and `covered`
                and `shares` [B, T, W], its columns that each covers and their weights, which sum
                to 1.
            sides: of several teachers, what `teacher` is of one; None where it reads `input_ids`.
            first_reader: of several teachers, the first that reads the same text.
            present [B, N]: which of several teachers reads the sample.
            teacher_index [B]: which of them the data name, if they do.
            counts: False, where the batch is a copy that counts nothing.
            stored [B, N]: the rows of the samples in the stores of their teachers, if they have
                some.
            before: a batch of the sample before the first, if the samples have neighbours and the
                batch has one sample or `neighbours` is on.

        Raises:
            ValueError: no samples, different numbers of given positions, or a teacher's text in
                only some samples.
        """
        if not samples:
            raise ValueError("an empty list of samples cannot be made a batch")
        pad = self.pad_token_id
        P = max(s.prompt_length for s in samples)
        prompts, prompt_mask = _pad([s.input_ids[: s.prompt_length] for s in samples], pad, "left")
        rests, rest_mask = _pad([s.input_ids[s.prompt_length :] for s in samples], pad, "right")
        answers, answer_mask = _pad([s.input_ids[s.answer_start :] for s in samples], pad, "right")
        student_prompts, student_mask = prompts, prompt_mask
        shared = all(
            s.student_prompt_ids is None
            or np.array_equal(s.student_prompt_ids, s.input_ids[: s.prompt_length])
            for s in samples
        )
        if not shared:
            student_prompts, student_mask = _pad([s.prompt_ids for s in samples], pad, "left")

        input_ids = np.concatenate([prompts, rests], axis=1)
        mask = np.concatenate([prompt_mask, rest_mask], axis=1)
        shift_B = np.array([P - s.prompt_length for s in samples])
        answer_start_B = np.array([s.answer_start for s in samples])
        value_start_B = np.array([s.value_start for s in samples])
        column_T = np.arange(input_ids.shape[1])
        segments = np.where(
            column_T < P,
            Segment.PROMPT,
            np.where(
                column_T < (answer_start_B + shift_B)[:, None], Segment.REASONING, Segment.ANSWER
            ),
        )
        segments = np.where(mask == 1, segments, Segment.PADDING)
        labels = np.where(segments > Segment.PROMPT, input_ids, IGNORED)
        batch = Batch(
            ids=[s.id for s in samples],
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask),
            segment_ids=torch.from_numpy(segments),
            labels=torch.from_numpy(labels),
            prompt_ids=torch.from_numpy(student_prompts),
            prompt_mask=torch.from_numpy(student_mask),
            answer_ids=torch.from_numpy(answers),
            answer_mask=torch.from_numpy(answer_mask),
            teacher_codi=torch.from_numpy(value_start_B - 1 + shift_B),
            student_codi=torch.from_numpy(value_start_B - answer_start_B - 1),
            shared_prompt=shared,
        )
        positions = [s.positions for s in samples if s.positions is not None]
        if positions:
            counts = {len(p) for p in positions}
            if len(positions) < len(samples) or len(counts) > 1:
                raise ValueError(
                    f"samples of one batch differ in given positions (counts {sorted(counts)}, "
                    f"{len(samples) - len(positions)} without any): give each the same count"
                )
            batch["positions"] = torch.from_numpy(np.array(positions) + shift_B[:, None])
        scored = [s.scores for s in samples if s.scores is not None]
        if scored:
            if len(scored) < len(samples):
                raise ValueError(
                    f"{len(samples) - len(scored)} of the {len(samples)} samples of a batch have "
                    f"no scores: score them all"
                )
            scores_BT = np.zeros(input_ids.shape, dtype=np.float32)
            for row_T, row_R in zip(scores_BT, scored):
                row_T[P : P + len(row_R)] = row_R
            batch["scores"] = torch.from_numpy(scores_BT)
        if any(s.teacher is not None for s in samples):
            texts = [s.teacher for s in samples]
            batch["teacher"] = self._teacher(
                texts, self.teacher_pad_token_id, shift_B, input_ids.shape[1]
            )
        if not samples[0].counts:
            batch["counts"] = False
        if samples[0].sides:
            self._add_sides(batch, samples, shift_B)
        if samples[0].stored:
            batch["stored"] = torch.tensor([s.stored for s in samples])
        before = samples[0].before
        if before is not None and (self.neighbours or len(samples) == 1):
            batch["before"] = self([before])
        return batch

    def for_side(self, n: int) -> Collator:
        """A collator of samples as the n-th of several teachers reads them (`as_read_by`)."""
        if not self.pad_token_ids:
            return self
        return replace(self, teacher_pad_token_id=self.pad_token_ids[n], pad_token_ids=())

    def _add_sides(self, batch: Batch, samples: Sequence[Encoded], shift_B: np.ndarray) -> None:
        """What several teachers read."""
        batch["sides"], batch["first_reader"] = [], []
        for n, pad in enumerate(self.pad_token_ids):
            texts = [s.sides[n].read for s in samples]
            same = (
                k for k in range(n) if all(s.sides[k].read is t for s, t in zip(samples, texts))
            )
            batch["first_reader"].append(next(same, n))
            if batch["first_reader"][n] < n:
                batch["sides"].append(batch["sides"][batch["first_reader"][n]])
                continue
            some = next((text for text in texts if text is not None), None)
            if some is None:
                batch["sides"].append(None)
                continue
            filled = [_stand_in(some, s) if t is None else t for t, s in zip(texts, samples)]
            part = self._teacher(filled, pad, shift_B, batch["input_ids"].shape[1])
            batch["sides"].append(part)
        batch["present"] = torch.tensor([[side.present for side in s.sides] for s in samples])
        named = [s.teacher_index for s in samples if s.teacher_index is not None]
        if len(named) == len(samples):
            batch["teacher_index"] = torch.tensor(named)

    def _teacher(
        self,
        given: Sequence[TeacherText | None],
        pad_token_id: int | None,
        shift_B: np.ndarray,
        T: int,
    ) -> TeacherBatch:
        """The teacher's own texts as a batch, with the columns that each student column covers."""
        texts = [text for text in given if text is not None]
        if len(texts) < len(given) or pad_token_id is None:
            raise ValueError(
                f"{len(texts)} of {len(given)} samples have a teacher's text: pair them all, and "
                f"name the teacher's padding token"
            )
        theirs = Collator(pad_token_id)([text.encoded for text in texts])
        P_t = max(text.encoded.prompt_length for text in texts)
        W = max(int(np.diff(text.alignment.indptr).max()) for text in texts)
        last = np.zeros((len(given), T), dtype=np.int64)
        covered = np.zeros((len(given), T, W), dtype=np.int64)
        shares = np.zeros((len(given), T, W), dtype=np.float32)
        for row, (text, start) in enumerate(zip(texts, shift_B.tolist())):
            alignment = text.alignment
            shift = P_t - text.encoded.prompt_length
            counts = np.diff(alignment.indptr)
            columns = slice(start, start + len(counts))
            used = np.arange(W) < counts[:, None]
            last[row, columns] = alignment.last + shift
            covered[row, columns][used] = alignment.indices + shift
            shares[row, columns][used] = alignment.weights
        batch = TeacherBatch(
            input_ids=theirs["input_ids"],
            attention_mask=theirs["attention_mask"],
            segment_ids=theirs["segment_ids"],
            teacher_codi=theirs["teacher_codi"],
            last=torch.from_numpy(last),
            covered=torch.from_numpy(covered),
            shares=torch.from_numpy(shares),
        )
        if "scores" in theirs:
            batch["scores"] = theirs["scores"]
        return batch


def _stand_in(text: TeacherText, sample: Encoded) -> TeacherText:
    """What fills the row of a sample that a teacher does not read, in place of its text."""
    return TeacherText(encoded=text.encoded, alignment=unaligned(len(sample.input_ids)))


def _pad(rows: Sequence[np.ndarray], fill: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows of different lengths to one int64 array, and return it with its mask."""
    width = max(len(row) for row in rows)
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    place: Callable[[int], slice] = (
        (lambda n: slice(width - n, width)) if side == "left" else (lambda n: slice(0, n))
    )
    for row, values in enumerate(rows):
        at = place(len(values))
        padded[row, at] = values
        mask[row, at] = 1
    return padded, mask
