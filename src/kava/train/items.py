"""What the terms of the loss are divided by: counts over the whole accumulated batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kava.data.collate import IGNORED, Batch
from kava.trace import Segment
from kava.train.config import TrainConfig
from kava.train.wrong_sample import compared_slots, reasoning_to_read


class Items(NamedTuple):
    """What the terms are divided by: counts over the whole accumulated batch."""

    answer_tokens: Tensor | float
    """Supervised tokens of the student."""
    written_tokens: Tensor | float
    """Supervised tokens of the teacher's text."""
    slots: Tensor | float
    """Pairs of sample and slot that the KV loss compares."""
    samples: Tensor | float
    latents: Tensor | float
    """Latents that are trained to read as reasoning tokens."""
    text_tokens: Tensor | float
    """Supervised tokens of the written chain of thought in the layout of the latents."""


def count_items(batch: Batch, config: TrainConfig) -> list[int]:
    """The items of one batch, in the order of `Items`; none of a batch that counts nothing."""
    if not batch.get("counts", True):
        return [0] * len(Items._fields)
    written = int(batch["labels"].ne(IGNORED).sum())
    answer = written if config.student == "explicit" else int(batch["answer_mask"].sum())
    slots = int(compared_slots(batch, config).sum())
    reasoning_B = reasoning_to_read(batch, config.wrong_sample)[1].sum(1)
    latents = int(reasoning_B.clamp(max=config.target_len).sum())
    text = int(batch["segment_ids"].eq(Segment.REASONING).sum()) + answer
    return [answer, written, slots, len(reasoning_B), latents, text]
