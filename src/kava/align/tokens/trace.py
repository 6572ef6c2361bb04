"""A teacher's trace at the positions of a student's tokens, where their tokenizers differ.

    hard   the teacher's position at which the student's token is complete
    soft   the mean over the teacher's positions under the token, by the characters they share

Shapes: B batch, L layers, H heads, T_s/T_t positions of student and teacher, D head dim, W the
most teacher tokens under one of the student's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kava.trace import KVTrace


def read_last(
    trace: KVTrace, last_BT: Tensor, segment_ids_BT: Tensor, mask_BT: Tensor | None = None
) -> KVTrace:
    """The trace at one teacher position for each of the student's tokens.

    A teacher's position keeps its own rotation and number, so that its attention can still be
    computed and its keys un-rotated.

    Args:
        trace: the teacher's, [B, L, H, T_t, D].
        last_BT: [B, T_s] columns of the trace; any column at padding.
        segment_ids_BT: [B, T_s], the student's.
        mask_BT: [B, T_s], False at the student's padding; default: where a segment is.

    Returns:
        a trace of length T_s with the student's segments and mask.

    Example:
        >>> keys = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3, 1)
        >>> last, segments = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.long)
        >>> read_last(KVTrace(keys, keys), last, segments).keys.flatten()
        tensor([2., 4.])
    """
    mask = segment_ids_BT >= 0 if mask_BT is None else mask_BT.bool()
    return replace(trace.gather(last_BT, mask=mask), segment_ids=segment_ids_BT)


def blend(trace: KVTrace, covered_BTW: Tensor, shares_BTW: Tensor, at_last: KVTrace) -> KVTrace:
    """The weighted mean over the teacher's positions under each of the student's tokens.

    Args:
        trace: the teacher's, un-rotated: a mean over keys that carry the rotation of different
            positions would mix rotations.
        covered_BTW: [B, T_s, W] columns of the trace.
        shares_BTW: [B, T_s, W] their weights, 0 for those not in use.
        at_last: a trace of the T_s tokens, whose mask, segments and positions are kept.

    Returns:
        a trace of length T_s, un-rotated.

    Raises:
        ValueError: a rotated trace.

    Example:
        >>> keys = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3, 1)
        >>> trace = KVTrace(keys, keys, rotated=False)
        >>> at_last = read_last(trace, torch.tensor([[2]]), torch.ones(1, 1, dtype=torch.long))
        >>> covered, shares = torch.tensor([[[0, 2]]]), torch.tensor([[[0.25, 0.75]]])
        >>> blend(trace, covered, shares, at_last).keys.flatten()
        tensor([3.2500])
    """
    if trace.rotated:
        raise ValueError(
            "soft token alignment would average keys that carry the rotation of different "
            "positions: un-rotate them first (--key_space unrotated), or use "
            "--token_alignment hard"
        )

    def mean(part: Tensor) -> Tensor:
        total: Tensor | None = None
        for place in range(covered_BTW.shape[2]):  # W is 1 to a few
            index = covered_BTW[:, :, place][:, None, None, :, None]
            weight = shares_BTW[:, :, place].to(part.dtype)[:, None, None, :, None]
            rows = torch.take_along_dim(part, index, dim=3) * weight
            total = rows if total is None else total + rows
        assert total is not None
        return total

    return replace(
        at_last,
        keys=mean(trace.keys),
        values=mean(trace.values),
        queries=None if at_last.queries is None else mean(_queries(trace)),
        rotated=False,
    )


def _queries(trace: KVTrace) -> Tensor:
    assert trace.queries is not None, "a trace gathered from this one has queries"
    return trace.queries
