"""Segment-wise resampling: read a teacher's whole text at a student's slots.

Nothing is evicted. A latent student's slots read the teacher's segments at even distances; a
student that reads a text is compared at some of its own positions, and the teacher is read at the
same place of the same segment, whatever the length of its own.

Shapes: B batch, T positions of the teacher's text, T_s of the student's, N compared slots,
S segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kava.align.time.time_warp import TimeWarper
from kava.align.time.trace import warp_trace
from kava.trace import KVTrace

NUM_SEGMENTS = 3


@dataclass(frozen=True, kw_only=True)
class SegmentResampling:
    """How densely each segment is compared, and how the teacher is interpolated.

    Args:
        ratios: {segment: slots for each of its positions}; segments that are not named are left
            out. Latents are divided among segments in these proportions.
        alphas: {segment: alpha}: 0 reads the nearest position, 1 (for a segment that is not
            named) interpolates, as in `TimeWarper`.

    Raises:
        ValueError: no segment to read, or a number outside its range.

    Example:
        >>> resampling = SegmentResampling(ratios={1: 0.5}, alphas={})
        >>> keys = torch.arange(6.0).view(1, 1, 1, 6, 1)
        >>> trace = KVTrace(keys, keys, segment_ids=torch.tensor([[0, 1, 1, 1, 1, 2]]))
        >>> resampling.to_latents(trace, 3)[0].keys.flatten().tolist()
        [1.0, 2.5, 4.0]
    """

    ratios: Mapping[int, float]
    alphas: Mapping[int, float]

    def __post_init__(self) -> None:
        self.warper  # noqa: B018 refuses numbers outside their range
        if not any(self.ratios.values()):
            raise ValueError(
                f"segment ratios {dict(self.ratios)} leave every segment out; give one a share "
                f"above 0"
            )

    @cached_property
    def warper(self) -> TimeWarper:
        """The time warper with these ratios and alphas."""
        ratios = dict.fromkeys(range(NUM_SEGMENTS), 0.0) | dict(self.ratios)
        return TimeWarper(NUM_SEGMENTS, ratios, self.alphas)

    def to_latents(self, trace: KVTrace, num_slots: int) -> tuple[KVTrace, Tensor]:
        """A teacher's text at M slots, which are divided among its segments.

        Args:
            trace: the whole text, with segments; un-rotated unless all alphas are 0.
            num_slots: M.

        Returns:
            [B, L, H, M, D], and the columns [B, M] that the slots read, the earlier of two.

        Raises:
            ValueError: a trace without segments, or a sample with nothing to read.
        """
        warp = self.warper.plan(_segments(trace), num_slots, trace.mask)
        return warp_trace(trace, warp), warp.lower

    def to_text(
        self, trace: KVTrace, segment_ids_BT: Tensor, mask_BT: Tensor | None = None
    ) -> tuple[KVTrace, Tensor]:
        """A teacher's text at positions of a student's.

        The ratio gives the number of the student's positions of a segment, at even distances with
        both ends included; position p of n reads p·(n_t − 1)/(n − 1) of the teacher's n_t. If
        both read the same tokens, that is the position itself.

        Args:
            trace: the teacher's whole text, with segments; un-rotated where its tokens are not
                the student's.
            segment_ids_BT: [B, T_s], the student's.
            mask_BT: [B, T_s], False at the student's padding.

        Returns:
            [B, L, H, N, D] with a mask where samples differ in their slots, and the student's
            columns [B, N].

        Raises:
            ValueError: a trace without segments, or a segment that only the student has.
        """
        slots_BS = self.slots(segment_ids_BT, mask_BT)
        chosen = _NEAREST.plan_slots(segment_ids_BT, slots_BS, mask_BT)
        columns_BN = torch.where(chosen.weight > 0, chosen.upper, chosen.lower)
        # the teacher at every position of the segments that are read, and of these the chosen
        counts_BS = _NEAREST.slots(segment_ids_BT, mask_BT) * (slots_BS > 0)
        places = self.warper.plan_slots(_segments(trace), counts_BS, trace.mask)
        valid_BT = segment_ids_BT >= 0 if mask_BT is None else mask_BT.bool()
        read_BT = valid_BT & (slots_BS > 0).gather(1, segment_ids_BT.clamp(min=0).long())
        rank_BN = (read_BT.long().cumsum(1) - 1).clamp(min=0).gather(1, columns_BN)
        return warp_trace(trace, places.select(rank_BN, chosen.mask)), columns_BN

    def slots(self, segment_ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """The number of a student's positions that are compared, per segment, [B, S]."""
        return self.warper.slots(segment_ids_BT, mask_BT)


_NEAREST = TimeWarper(NUM_SEGMENTS, alpha_map=dict.fromkeys(range(NUM_SEGMENTS), 0.0))


def _segments(trace: KVTrace) -> Tensor:
    if trace.segment_ids is None or trace.segment_ids.ndim != 2:
        raise ValueError("resampling needs the segments of a whole text, [B, T]")
    return trace.segment_ids
