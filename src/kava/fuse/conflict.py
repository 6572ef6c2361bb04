"""Whether teachers pull the student in the same direction.

A teacher pulls the student's cache from where it is to the teacher's target. Two teachers conflict
where their pulls point apart, as gradients of tasks do (PCGrad, arXiv 2001.06782): their mean is
then shorter than either, and close to neither target.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim, N teachers, C = 2·H·D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.fuse.base import Offers, needed


def agreement(offers: Offers) -> tuple[Tensor, Tensor]:
    """The mean cosine between the pulls of all pairs of teachers, keys and values together.

    Returns:
        [B, L, M] cosines from −1 to 1, and [B, M] bool: where two teachers or more fill the slot.
    """
    student = needed(offers.student, "student", "disagreement")
    pulls = [
        torch.cat([trace.keys - student.keys, trace.values - student.values], dim=-1)
        for trace in offers.traces
    ]
    unit_NBLMC = torch.nn.functional.normalize(
        torch.stack(pulls).float().transpose(3, 4).flatten(4), dim=-1
    )
    valid_NBM = offers.valid_BMN().permute(2, 0, 1)
    unit_NBLMC = unit_NBLMC * valid_NBM[:, :, None, :, None]
    # the squared norm of a sum of unit vectors is their number and twice all pairs' cosines
    count_BM = valid_NBM.sum(0)
    pairs_BM = count_BM * (count_BM - 1) / 2
    twice_BLM = unit_NBLMC.sum(0).square().sum(-1) - unit_NBLMC.square().sum((0, -1))
    return twice_BLM / 2 / pairs_BM.clamp(min=1)[:, None], count_BM > 1
