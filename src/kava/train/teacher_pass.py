"""What one pass of a teacher over its text leaves behind."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.data.collate import IGNORED, Batch
from kava.losses import hidden_at
from kava.models.chunked import capture_in_chunks
from kava.store.teacher import StoredPass
from kava.student.answering import evaluating
from kava.trace import KVTrace, Segment
from kava.train.settings import Settings


class TeacherPass(NamedTuple):
    """A teacher's pass over its text."""

    logits: Tensor
    """[B, N, V], at the columns that predict reasoning and answer."""
    labels: Tensor
    answer_labels: Tensor
    writes: bool
    """Whether the text is trained, so that there are logits."""
    hidden_states: Any
    cache: Any
    trace: KVTrace
    codi_columns: Tensor

    def before_answer(self) -> Tensor:
        """[B, L+1, W]: the hidden states at the token before the answer's value."""
        return hidden_at(self.hidden_states, self.codi_columns)


Pass = TeacherPass | StoredPass
"""What a teacher leaves behind, live or stored."""


def read_teacher(
    model: PreTrainedModel,
    batch: Batch,
    own: bool,
    trained: bool,
    queries: bool,
    settings: Settings,
) -> TeacherPass:
    """One forward of a teacher over its text.

    It is read without dropout, in self-distillation too, so that a batch has one target and one
    choice of kept positions in every pass. The same forward trains the written text and leaves the
    cache of a shared prompt to the student: these have no dropout either. The student's own passes,
    from begin-of-thought on, keep it.

    Args:
        model: the teacher.
        batch: as the collator makes it.
        own: whether it is the student itself, and its pass takes gradients.
        trained: whether its text is trained, so that there are logits.
        queries: record queries, too.
        settings: of the run: whether a loss reads hidden states, and the chunks in which another
            model than the student reads.
    """
    text_from = text_column(batch["segment_ids"])
    P = batch["prompt_ids"].shape[1] if batch["shared_prompt"] else text_from
    # the head only where a label stands; a frozen teacher's logits are not read
    columns = torch.arange(P - 1, batch["input_ids"].shape[1] - 1)
    keep: int | Tensor = columns.to(batch["input_ids"].device) if trained else 1
    read = batch.get("teacher", batch)
    with torch.set_grad_enabled(own and torch.is_grad_enabled()), evaluating(model):
        outputs, trace = capture_in_chunks(
            model,
            read["input_ids"],
            read["attention_mask"],
            read["segment_ids"],
            chunk=None if own else settings.capture_chunk,
            queries=queries,
            hidden_states=settings.codi_weight > 0,
            logits_to_keep=keep,
        )
    return TeacherPass(
        logits=outputs.logits,
        labels=batch["labels"][:, P:],
        answer_labels=batch["labels"][:, P:].masked_fill(
            batch["segment_ids"][:, P:] != Segment.ANSWER, IGNORED
        ),
        writes=trained,
        hidden_states=outputs.hidden_states,
        cache=outputs.past_key_values,
        trace=trace.detach(),
        codi_columns=read["teacher_codi"],
    )


@torch.no_grad()
def read_frozen(
    model: PreTrainedModel,
    batch: Batch,
    *,
    chunk: int | None,
    queries: bool,
    hidden_states: bool,
    likelihood: bool,
) -> TeacherPass:
    """One pass of a frozen teacher over its own text, without labels to train.

    Args:
        model: the teacher.
        batch: as the collator makes it, or a part of it.
        chunk: columns of a forward; None: all.
        queries: record queries, too.
        hidden_states: return hidden states, too.
        likelihood: with the logits of reasoning and answer.
    """
    text = batch.get("teacher", batch)
    start = text_column(text["segment_ids"])
    keep: int | Tensor = 1
    if likelihood:
        columns = torch.arange(start - 1, text["input_ids"].shape[1] - 1)
        keep = columns.to(text["input_ids"].device)
    outputs, trace = capture_in_chunks(
        model,
        text["input_ids"],
        text["attention_mask"],
        text["segment_ids"],
        chunk=chunk,
        queries=queries,
        hidden_states=hidden_states,
        logits_to_keep=keep,
    )
    written = text["segment_ids"][:, start:] > Segment.PROMPT
    labels = text["input_ids"][:, start:].masked_fill(~written, IGNORED)
    answer = text["segment_ids"][:, start:] == Segment.ANSWER
    return TeacherPass(
        logits=outputs.logits,
        labels=labels,
        answer_labels=labels.masked_fill(~answer, IGNORED),
        writes=False,
        hidden_states=outputs.hidden_states,
        cache=None,
        trace=trace.detach(),
        codi_columns=text["teacher_codi"],
    )


def text_column(segment_ids: Tensor) -> int:
    """The first column behind the prompts of a batch."""
    return int(segment_ids.ge(Segment.REASONING).any(0).nonzero()[0])
