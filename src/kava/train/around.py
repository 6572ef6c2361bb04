"""A batch and the student's pass over it, from which a target may be chosen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kava.data.collate import Batch
from kava.rope import Rotary
from kava.student.passes import LatentOutput
from kava.trace import KVTrace
from kava.train.items import Items
from kava.train.teacher_pass import text_column


class Around(NamedTuple):
    """A batch and the student's pass over it, from which a target may be chosen."""

    batch: Batch
    student: KVTrace
    """The latents, or an explicit student's whole text."""
    output: LatentOutput | None
    """None of an explicit student."""
    rotary: Rotary | None
    """The student's."""
    labels: Tensor
    """[B, A] of the answer."""
    items: Items
    diagnose: bool


def query_of(around: Around) -> Tensor:
    """[B, L, H·D]: the student's values where the reasoning begins, without a gradient."""
    if around.output is not None:
        values = [layer[1][:, :, -1] for layer in around.output.begin_pairs]
        return torch.stack(values, dim=1).flatten(2).detach().float()
    last = text_column(around.batch["segment_ids"]) - 1
    return around.student.values[:, :, :, last].flatten(2).detach().float()


def rotary_of_latents(rotary: Rotary | None, latents: KVTrace, num_behind: int) -> Rotary | None:
    """The student's rotation at the length of its passes, which all of a batch must share.

    Args:
        rotary: the student's.
        latents: of the batch.
        num_behind: columns of the answer.

    Raises:
        ValueError: passes on both sides of a length at which the rotary scaling changes.
    """
    if rotary is None or rotary.num_positions is None:
        return rotary
    assert latents.positions is not None
    length = int(latents.positions.max()) + 2 + num_behind
    if length >= rotary.num_positions:
        raise ValueError(
            f"the student's rotary scaling changes at {rotary.num_positions} positions, and "
            f"the passes of this batch of latents reach {length}: each would rotate its keys "
            f"otherwise; lower --max_length, or take --student explicit"
        )
    return rotary.at_length(length)
