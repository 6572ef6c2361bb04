"""From a teacher's pass over a batch to what is stored of each sample.

Shapes: B batch, L layers, H key/value heads, T columns, M kept positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kava.data.encoded import Encoded
from kava.store.teacher import ANSWER_PART, HIDDEN, TEXT_PART, WEIGHTS, Kept
from kava.store.writer import Item
from kava.trace import KVTrace


class Read(NamedTuple):
    """What a teacher left behind over a batch."""

    trace: KVTrace
    hidden: Tensor | None
    answer_B: Tensor | None
    text_B: Tensor | None
    columns_BS: Tensor | None = None
    """The columns of a trace that holds a part of the text."""

    def in_the_text(self, kept: Kept) -> Kept:
        """What was kept of the trace, with its columns in the whole text."""
        if self.columns_BS is None:
            return kept
        wide = self.columns_BS
        if kept.columns.ndim == 4:
            wide = wide[:, None, None].expand(*kept.columns.shape[:3], -1)
        return kept._replace(columns=wide.gather(-1, kept.columns))

    def whole_parts(self, row: int) -> dict[str, Tensor]:
        """The parts of a sample that have no slots."""
        parts = {HIDDEN: self.hidden, ANSWER_PART: self.answer_B, TEXT_PART: self.text_B}
        return {name: p[row].float().clone() for name, p in parts.items() if p is not None}


class Job(NamedTuple):
    """A sample as one teacher reads it, and where it is still missing."""

    sample: Encoded
    full: bytes | None
    """Its digest as a whole text, where that is to be stored."""
    target: bytes | None
    """Its digest as a target."""


def whole_items(read: Read, text: Any, jobs: list[Job], queries: bool) -> Iterator[Item]:
    """The whole texts of a batch.

    Args:
        read: the pass over it.
        text: the part of the batch that the teacher read.
        jobs: its samples.
        queries: whether to store queries.
    """
    mask_BT = text["attention_mask"].bool()
    for row, job in enumerate(jobs):
        if job.full is None:
            continue
        start, length = int(mask_BT[row].long().argmax()), int(mask_BT[row].sum())
        yield Item(
            id=job.sample.id,
            digest=job.full,
            length=length,
            cache=_cache(read.trace, row, slice(start, start + length), queries),
            slots={},
            whole=read.whole_parts(row),
        )


def target_items(read: Read, kept: Kept, batch: Any, jobs: list[Job], own: bool) -> Iterator[Item]:
    """The kept positions of a batch.

    Args:
        read: the pass over it.
        kept: what was kept of it.
        batch: with the student's text, and the teacher's where it has its own.
        jobs: its samples.
        own: whether columns are those of the teacher's own text.
    """
    first_B = (batch["teacher"] if own else batch)["attention_mask"].long().argmax(1).tolist()
    mask_BM = kept.trace.valid_BT()
    for row, job in enumerate(jobs):
        if job.target is None:
            continue
        length = int(mask_BM[row].sum())
        slots = {"columns": (kept.columns[row] - first_B[row])[..., :length].to(torch.int32)}
        if kept.trace.positions is not None:
            slots["positions"] = kept.trace.positions[row][..., :length].to(torch.int32)
        if kept.weights is not None:
            slots[WEIGHTS] = kept.weights[row, :length].float()
        if kept.scores is not None:
            slots["scores"] = kept.scores[row][..., :length].float()
        yield Item(
            id=job.sample.id,
            digest=job.target,
            length=length,
            cache=_cache(kept.trace, row, slice(0, length), kept.trace.queries is not None),
            slots=slots,
            whole=read.whole_parts(row),
        )


def _cache(trace: KVTrace, row: int, columns: slice, queries: bool) -> dict[str, Tensor]:
    parts = {"keys": trace.keys, "values": trace.values}
    if queries:
        assert trace.queries is not None
        parts["queries"] = trace.queries
    return {name: part[row, :, :, columns] for name, part in parts.items()}
