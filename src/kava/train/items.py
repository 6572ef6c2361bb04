"""What the terms of the loss are divided by: counts over the whole accumulated batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kava.data.collate import IGNORED, Batch
from kava.trace import Segment
from kava.train.config import TrainConfig


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
    """Latents that are held to reasoning tokens."""
    text_tokens: Tensor | float
    """Supervised tokens of the written chain of thought in the layout of the latents."""


def count_items(batch: Batch, config: TrainConfig) -> list[int]:
    """The items of one batch, in the order of `Items`."""
    written = int(batch["labels"].ne(IGNORED).sum())
    answer = written if config.student == "explicit" else int(batch["answer_mask"].sum())
    own_positions = config.token_alignment == "none" and "teacher" in batch
    segment_ids = batch["teacher"]["segment_ids"] if own_positions else batch["segment_ids"]
    reasoning_B = segment_ids.eq(Segment.REASONING).sum(1)
    resampling = config.resampling
    if resampling is not None and config.student == "explicit":
        slots = int(resampling.slots(batch["segment_ids"], batch["attention_mask"]).sum())
    elif config.kv_method != "full":
        slots = int(reasoning_B.clamp(max=config.target_len).sum())
    elif config.student == "explicit":
        slots = int(reasoning_B.sum())
    else:
        slots = len(reasoning_B) * config.target_len
    own_B = batch["segment_ids"].eq(Segment.REASONING).sum(1)
    latents = int(own_B.clamp(max=config.target_len).sum())
    return [answer, written, slots, len(reasoning_B), latents, int(own_B.sum()) + answer]
