"""The shared space: an encoder for each teacher, one for the student, and the loss between them.

Shapes: B batch, M slots, N teachers, Z dims.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kava.fuse.base import Offers, renormalise
from kava.shared.encoder import TraceEncoder
from kava.shared.losses import SHARED_LOSSES
from kava.trace import KVTrace


class SharedSpace(nn.Module):
    """Encoders g_1 … g_N of the teachers' traces and h of the student's, into one space.

    Args:
        num_teachers: N.
        geometry: layers, heads and head dim of the traces, which are aligned to the student's.
        dim: Z.
        loss: a name of `SHARED_LOSSES`.

    Example:
        >>> space = SharedSpace(2, (2, 4, 16), dim=8, loss="mse")
        >>> keys = torch.randn(3, 2, 4, 5, 16)
        >>> space.student(KVTrace(keys, keys)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, num_teachers: int, geometry: tuple[int, int, int], *, dim: int, loss: str):
        super().__init__()
        self.dim = dim
        self.loss = SHARED_LOSSES[loss]
        self.teachers = nn.ModuleList(TraceEncoder(*geometry, dim) for _ in range(num_teachers))
        self.student = TraceEncoder(*geometry, dim)

    def mixed(self, traces: Sequence[KVTrace], offers: Offers, weights: Tensor) -> Tensor:
        """[B, M, Z]: the weighted mean of the teachers' points.

        Args:
            traces: one of each teacher, [B, L, H, M, D].
            offers: says which teachers fill which slots.
            weights: [B, L or 1, M or 1, N], as a fusion gives them; layers are averaged.
        """
        valid_BMN = offers.valid_BMN()
        weights_BMN = renormalise(weights, valid_BMN[:, None]).mean(1)
        points = torch.stack([g(trace) for g, trace in zip(self.teachers, traces)], dim=-1)
        points = points.masked_fill(~valid_BMN[:, :, None], 0.0)
        return (points * weights_BMN[:, :, None]).sum(-1)

    def side_by_side(self, traces: Sequence[KVTrace]) -> Tensor:
        """[B, M, Z]: the points of teachers that have slots of their own, one after the other."""
        return torch.cat([g(trace) for g, trace in zip(self.teachers, traces)], dim=1)

    def compare(
        self,
        student_BMZ: Tensor,
        teacher_BMZ: Tensor,
        mask_BM: Tensor,
        num_slots: Tensor | float | None = None,
    ) -> Tensor:
        """The loss over the slots that both fill.

        Args:
            student_BMZ: the student's points.
            teacher_BMZ: the teachers'.
            mask_BM: the slots to compare.
            num_slots: their number in the whole accumulated batch; None: in this one. Losses that
                are statistics of a batch become means over batches, weighted by their slots.
        """
        ours, theirs = student_BMZ[mask_BM], teacher_BMZ[mask_BM]
        if not len(ours):
            return (student_BMZ.sum() + teacher_BMZ.sum()) * 0.0
        loss = self.loss(ours, theirs)
        return loss if num_slots is None else loss * len(ours) / num_slots
