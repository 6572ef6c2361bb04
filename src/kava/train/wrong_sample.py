"""What goes along with the wrong sample's cache: weights of slots, tokens that latents read as.

As the cache, they are those of the sample before in the batch; the first gets those of the
sample that the collator brought along, or the last's.

Shapes: B batch, T text columns, M slots.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from kava.data.collate import Batch
from kava.trace import Segment


def wrong_weights(weights_BM: Tensor, before_BM: Tensor) -> Tensor:
    """[B, M]: the weights of the sample before each; before the first comes the last of
    `before_BM`, which may have another number of slots."""
    M = weights_BM.shape[1]
    before_1M = pad(before_BM[-1:, :M], (0, max(M - before_BM.shape[1], 0)))
    return torch.cat([before_1M, weights_BM[:-1]])


def reasoning_to_read(batch: Batch, wrong_sample: bool) -> tuple[Tensor, Tensor]:
    """The tokens [B, T] that the latents are to read as, and where they are reasoning.

    Raises:
        ValueError: the wrong sample's, of a batch of one without another.
    """
    ids_BT, reasoning_BT = batch["input_ids"], batch["segment_ids"].eq(Segment.REASONING)
    if not wrong_sample:
        return ids_BT, reasoning_BT
    before = batch.get("before")
    if before is not None:
        last = before["input_ids"], before["segment_ids"].eq(Segment.REASONING)
    elif len(ids_BT) > 1:
        last = ids_BT[-1:], reasoning_BT[-1:]
    else:
        raise ValueError(
            "a batch of 1 sample has no wrong sample to read as; use a batch of 2 or more"
        )
    T = max(ids_BT.shape[1], last[0].shape[1])

    def behind(first: Tensor, others: Tensor) -> Tensor:
        return torch.cat([pad(part, (0, T - part.shape[1])) for part in (first, others[:-1])])

    return behind(last[0], ids_BT), behind(last[1], reasoning_BT)
