"""What a latent student can read: its answers from text, from latents, and from what replaces them.

Four accuracies, each the share of samples whose answer is predicted whole, token after token. This
is the accuracy of greedy decoding against the very text of the gold answer, at one pass for each:

    written        after the chain of thought in text: read at all?
    target         with the KV target in the place of the latents: can the target be read?
    latents        after the student's own latents: do they carry what is needed?
    wrong_sample   with another sample's latents in their place: what do they tell of any sample?

In self-distillation, whose text has no thought vectors, `written` is read off the teacher's pass;
otherwise the text is laid out as `kava.student.written` says.

Shapes: B batch, L layers, H key/value heads, M latents, D head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kava.data.collate import IGNORED, Batch
from kava.losses.guard import wrong_sample
from kava.rope import Rotary, rotate_trace, unrotate_trace
from kava.student.latent import LatentStudent
from kava.student.passes import LatentOutput
from kava.student.written import WrittenText, lay_out
from kava.trace import KVTrace, Segment

READINGS = ("written", "target", "latents", "wrong_sample")
"""In the order in which one needs the other."""


class Reading(NamedTuple):
    """Which samples are answered rightly, each [B] bool, or None where it cannot be asked."""

    written: Tensor | None
    target: Tensor | None
    latents: Tensor
    wrong_sample: Tensor | None
    trace: KVTrace | None = None
    """The latents, for the samples of the next batch to borrow from."""


def right_answers(logits: Tensor, labels: Tensor) -> Tensor:
    """[B]: the samples of which every label is predicted.

    Args:
        logits: [B, N, V].
        labels: [B, N], −100 where there is none.
    """
    return ((logits.argmax(-1) == labels) | labels.eq(IGNORED)).all(1)


def written_text(batch: Batch) -> WrittenText:
    """What a latent student reads behind its prompt, with its chain of thought written out."""
    reasoning_BT = batch["segment_ids"].eq(Segment.REASONING)
    columns_T = reasoning_BT.any(0).nonzero()[:, 0]
    if len(columns_T) == 0:
        ids_BR, mask_BR = batch["input_ids"][:, :0], reasoning_BT[:, :0]
    else:
        # all reasoning begins in one column
        span = slice(int(columns_T[0]), int(columns_T[-1]) + 1)
        ids_BR, mask_BR = batch["input_ids"][:, span], reasoning_BT[:, span]
    return lay_out(ids_BR, mask_BR, batch["answer_ids"], batch["answer_mask"])


def at_latents(trace: KVTrace, latents: KVTrace, rotary: Rotary | None) -> KVTrace:
    """A trace of the student's geometry, its keys as the student would cache them at its latents.

    Args:
        trace: [B, L, H, M, D]; keys that are rotated stay as they are.
        latents: the student's own, with their positions.
        rotary: the student's.
    """
    if trace.rotated:
        return trace
    return rotate_trace(trace, rotary, latents.positions)


def others_latents(
    latents: KVTrace, rotary: Rotary | None, before: KVTrace | None = None
) -> KVTrace:
    """The latents of the sample before each, rotated to its own latents' positions.

    Args:
        latents: of a batch.
        rotary: the student's.
        before: of the sample before the first; left out, the first gets the last's.
    """
    plain = unrotate_trace(replace(latents, queries=None), rotary)
    if before is not None:
        before = unrotate_trace(replace(before, queries=None), rotary)
    return at_latents(wrong_sample(plain, before), latents, rotary)


class ReadingCounts:
    """The readings of several batches as accuracies.

    Example:
        >>> counts = ReadingCounts()
        >>> right = torch.tensor([True, False])
        >>> counts.look(Reading(written=right, target=None, latents=~right, wrong_sample=None))
        >>> counts.accuracy()
        {'written': 0.5, 'latents': 0.5}
    """

    def __init__(self) -> None:
        self._counts = {name: [0, 0] for name in READINGS}
        self.before: KVTrace | None = None

    def borrow_from(self, reading: Reading | None) -> None:
        """Let the first sample of the next batch borrow the latents of the last one here."""
        if reading is not None and reading.trace is not None:
            self.before = reading.trace.samples([reading.trace.batch_size - 1])

    def look(self, reading: Reading | None) -> None:
        """Take a batch's."""
        if reading is None:
            return
        self.borrow_from(reading)
        for name in READINGS:
            right_B = getattr(reading, name)
            if right_B is not None:
                self._counts[name][0] += int(right_B.sum())
                self._counts[name][1] += len(right_B)

    def accuracy(self) -> dict[str, float]:
        """From 0 to 1, of each that was asked for."""
        return {name: right / asked for name, (right, asked) in self._counts.items() if asked}


class TextReading(Protocol):
    """A pass over the written chain of thought and the answer behind it."""

    @property
    def logits(self) -> Tensor:
        """[B, N, V]."""

    @property
    def answer_labels(self) -> Tensor:
        """[B, N], −100 where no token of the answer is predicted."""


def answer_from(
    student: LatentStudent,
    batch: Batch,
    output: LatentOutput,
    trace: KVTrace,
    rotary: Rotary | None,
) -> Tensor:
    """The logits [B, A, V] of the answer with `trace` in the place of the latents.

    Args:
        student: what reads.
        batch: as the collator makes it.
        output: of the student's pass over the batch, with its trace.
        trace: [B, L, H, M, D] of the student's geometry.
        rotary: the student's.
    """
    assert output.trace is not None
    return student.answer_from(
        batch["prompt_ids"],
        batch["prompt_mask"],
        batch["answer_ids"],
        output.begin_pairs,
        at_latents(trace, output.trace, rotary),
    )


@torch.no_grad()
def read_answers(
    student: LatentStudent,
    batch: Batch,
    output: LatentOutput,
    text: TextReading,
    target: KVTrace | None,
    rotary: Rotary | None,
    before: KVTrace | None = None,
) -> Reading:
    """Which answers are predicted, and from what.

    Args:
        student: what reads.
        batch: as the collator makes it.
        output: of the student's pass over the batch, with its trace.
        text: of the pass over the written chain of thought.
        target: what the latents are matched with, in the student's geometry; None where there is
            no such thing.
        rotary: the student's, by which keys are moved from one sample's latents to another's.
        before: the latents of the sample before the first; left out, the first gets the last's.
    """
    labels_BA = batch["answer_ids"].masked_fill(batch["answer_mask"] == 0, IGNORED)

    def right_from(trace: KVTrace) -> Tensor:
        return right_answers(answer_from(student, batch, output, trace, rotary), labels_BA)

    latents, of_target, of_others = output.trace, None, None
    if latents is not None and target is not None:
        of_target = right_from(target)
    if latents is not None and (latents.batch_size > 1 or before is not None):
        of_others = right_from(others_latents(latents, rotary, before))
    return Reading(
        written=right_answers(text.logits, text.answer_labels),
        target=of_target,
        latents=right_answers(output.logits, labels_BA),
        wrong_sample=of_others,
        trace=latents,
    )


def gradient_shares(
    weighted: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Each term's share of the gradient: its norm divided by the sum of all terms' norms.

    Args:
        weighted: the terms as they are added up, with their graphs.
        parameters: what is trained.
    """
    norms = {}
    for name, term in weighted.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        squares = [g.float().square().sum() for g in gradients if g is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}
