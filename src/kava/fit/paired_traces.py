"""Teacher and student over the same text: paired traces, position by position.

Maps between two caches are fitted to these and judged on them: both models read the written text,
each in its own tokens, and the teacher's cache is brought to the positions of the student's tokens.

Shapes: B batch, L_t/L_s layers, H_t/H_s key/value heads, T_s positions of the student's text,
D_t/D_s head dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.align.tokens.trace import blend, read_last
from kava.data.collate import Batch
from kava.fit.statistics import TracePair
from kava.models.chunked import capture_in_chunks
from kava.models.rotary import rotary_of
from kava.rope import Rotary, unrotate_trace
from kava.store.teacher import StoredTeacher
from kava.trace import KVTrace


def read_tokens(trace: KVTrace, batch: Batch) -> KVTrace:
    """Read a teacher's trace, [.., T_t, ..], where each of the student's tokens is complete."""
    last = batch["teacher"]["last"]
    return read_last(trace, last, batch["segment_ids"], batch["attention_mask"])


def to_student_tokens(trace: KVTrace, batch: Batch, token_alignment: str) -> KVTrace:
    """A teacher's whole trace at the positions of the student's tokens.

    Args:
        trace: the teacher's, over its own tokens; un-rotated for a soft alignment.
        batch: the batch it read; without a text of the teacher's own, positions stay.
        token_alignment: "hard" or "soft".

    Raises:
        ValueError: a soft alignment of rotated keys.

    Example:
        >>> at_words = to_student_tokens(unrotate_trace(trace, rotary), batch, "soft")
    """
    if "teacher" not in batch:
        return trace
    at_last = read_tokens(trace, batch)
    if token_alignment == "hard":
        return at_last
    return blend(trace, batch["teacher"]["covered"], batch["teacher"]["shares"], at_last)


@torch.no_grad()
def paired_traces(
    teacher: PreTrainedModel | StoredTeacher,
    student: PreTrainedModel,
    batches: Iterable[Batch],
    *,
    token_alignment: str = "hard",
    queries: bool = False,
    rotated: bool = False,
    segments: Sequence[int] | None = None,
    chunk: int | None = None,
) -> Iterator[TracePair]:
    """Read batches with both models, one forward each, and pair their traces.

    Args:
        teacher: reads the batch's `teacher` part where there is one; a stored one has read it.
        student: reads the batch's text.
        batches: as the collator makes them.
        token_alignment: "hard" or "soft", where the tokenizers differ.
        queries: record queries too.
        rotated: leave keys and queries as they are cached; else their rotation is taken out.
        segments: compare the positions of these segments of the student's text; default: all.
        chunk: columns of a forward of either model; None: the whole text.

    Example:
        >>> for pair in paired_traces(teacher, student, batches):
        ...     statistics.update(pair)
    """
    rotaries: tuple[Rotary | None, Rotary | None] = (None, None)
    if not rotated:
        theirs = teacher.rotary if isinstance(teacher, StoredTeacher) else rotary_of(teacher)
        rotaries = theirs, rotary_of(student)
    for batch in batches:
        batch = moved(batch, student.device)
        traces = []
        for model, rotary, part in (
            (teacher, rotaries[0], batch.get("teacher", batch)),
            (student, rotaries[1], batch),
        ):
            if isinstance(model, StoredTeacher):
                trace = model.whole(batch, queries)
            else:
                _, trace = capture_in_chunks(
                    model,
                    part["input_ids"],
                    part["attention_mask"],
                    part["segment_ids"],
                    chunk=chunk,
                    queries=queries,
                    hidden_states=False,
                    logits_to_keep=1,
                )
            trace = trace.in_float32()
            traces.append(trace if rotated else unrotate_trace(trace, rotary))
        mask = batch["attention_mask"].bool()
        if segments is not None:
            mask = torch.isin(batch["segment_ids"], torch.tensor(segments, device=mask.device))
        yield TracePair(to_student_tokens(traces[0], batch, token_alignment), traces[1], mask)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with all of its tensors on a device."""
    if isinstance(batch, dict):
        return {name: moved(part, device) for name, part in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch
