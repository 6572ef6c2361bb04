"""What the wrong-sample control takes from another sample beside its cache.

With `--wrong_sample` everything that the teacher gives is another sample's: the cache and the
weights of its slots, the hidden state of CODI, and the reasoning tokens that latents read as. The
other sample is the one before in the batch; the first takes the sample that the collator brought
along, or the last one. Left of its own sample are the answer's cross-entropy and, in
self-distillation, that of the teacher's text, which trains the teacher and not what it gives.

A latent student is compared wherever the other sample has a target, so that it is supervised as
much as without the control. A student that reads a text has its own positions alone: it is
compared at those of them that the other sample has too.

Shapes: B batch, T text columns, M slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from kava.data.collate import Batch
from kava.trace import Segment

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


def of_sample_before(own: Tensor, before: Tensor | None = None) -> Tensor:
    """What each sample of a batch takes from the one before it.

    Args:
        own: [B, …], what the samples have.
        before: [N, …], whose last row comes before the first sample; left out, the first takes
            the last sample's.

    Returns:
        [B, …].

    Raises:
        ValueError: a batch of one sample, and none before it.

    Example:
        >>> of_sample_before(torch.tensor([5, 6, 7])).tolist()
        [7, 5, 6]
    """
    if before is None and len(own) < 2:
        raise ValueError(
            "a batch of 1 sample has no wrong sample to take anything from; use a batch of 2 or "
            "more"
        )
    first = own if before is None else before
    return torch.cat([first[-1:], own[:-1]])


def wrong_weights(weights_BM: Tensor, before_BM: Tensor) -> Tensor:
    """[B, M]: the weights of the sample before each; before the first comes the last of
    `before_BM`, which may have another number of slots."""
    M = weights_BM.shape[1]
    return of_sample_before(weights_BM, pad(before_BM, (0, M - before_BM.shape[1])))


def reasoning_to_read(batch: Batch, wrong_sample: bool) -> tuple[Tensor, Tensor]:
    """The tokens [B, T] that the latents are to read as, and where they are reasoning.

    Raises:
        ValueError: the wrong sample's, of a batch of one without another.
    """
    ids_BT, reasoning_BT = batch["input_ids"], batch["segment_ids"].eq(Segment.REASONING)
    if not wrong_sample:
        return ids_BT, reasoning_BT
    before = batch.get("before")
    if before is None:
        return of_sample_before(ids_BT), of_sample_before(reasoning_BT)
    others = before["input_ids"], before["segment_ids"].eq(Segment.REASONING)
    T = max(ids_BT.shape[1], others[0].shape[1])
    ids_BT, reasoning_BT = (
        of_sample_before(_fill(own, T), _fill(other, T))
        for own, other in zip((ids_BT, reasoning_BT), others)
    )
    return ids_BT, reasoning_BT


def tokens_to_write(batch: Batch, config: TrainConfig) -> Tensor:
    """The tokens of reasoning and answer that the cross-entropy of several teachers is taken over.

    Returns:
        [B, 1], of the student's text, which all teachers read in tokens of their own; [B, N] where
            each reads its own reasoning.
    """
    own_BN = _written(batch, config)
    if not config.wrong_sample:
        return own_BN
    before = batch.get("before")
    return of_sample_before(own_BN, None if before is None else _written(before, config))


def _written(batch: Batch, config: TrainConfig) -> Tensor:
    read = _texts_read(batch) if config.teacher_reasoning else [batch["segment_ids"]]
    return torch.stack([(segments_BT > Segment.PROMPT).sum(1) for segments_BT in read], 1)


def _texts_read(batch: Batch) -> list[Tensor]:
    """The segments of the text that each of several teachers reads, [B, T] of its own T."""
    return [(batch if side is None else side)["segment_ids"] for side in batch["sides"]]


def compared_slots(batch: Batch, config: TrainConfig) -> Tensor:
    """How many slots of each sample the KV loss compares with its target, [B].

    It is known from the batch alone, before any forward, so that it can be summed over an
    accumulated batch of all processes.
    """
    own_B = _own_slots(batch, config)
    if not config.wrong_sample:
        return own_B
    before = batch.get("before")
    other_B = of_sample_before(own_B, None if before is None else _own_slots(before, config))
    return other_B if config.student == "latent" else own_B.minimum(other_B)


def _own_slots(batch: Batch, config: TrainConfig) -> Tensor:
    """The slots of each sample that its own teacher's cache fills, [B]."""
    own_positions = config.token_alignment == "none" and "teacher" in batch
    segment_ids = batch["teacher"]["segment_ids"] if own_positions else batch["segment_ids"]
    reasoning_B = segment_ids.eq(Segment.REASONING).sum(1)
    if config.token_alignment == "none" and "sides" in batch:
        counts = [part_BT.eq(Segment.REASONING).sum(1) for part_BT in _texts_read(batch)]
        reasoning_B = (torch.stack(counts, 1) * batch["present"]).amax(1)
    resampling = config.resampling
    if resampling is not None and config.student == "explicit":
        return resampling.slots(batch["segment_ids"], batch["attention_mask"]).sum(1)
    if config.kv_method != "full":
        given = batch["positions"].shape[1] if "positions" in batch else config.target_len
        named = config.kv_method == "positions"
        return reasoning_B.clamp(max=min(given, config.target_len) if named else config.target_len)
    if config.student == "explicit":
        return reasoning_B
    return torch.full_like(reasoning_B, config.target_len)


def _fill(part_BT: Tensor, length: int) -> Tensor:
    return pad(part_BT, (0, length - part_BT.shape[1]))
