"""Time warping: read a teacher's T_t positions at a student's T_s slots, segment by segment.

Each sample's slots are shared out between its segments (prompt, reasoning, answer) by largest
remainder; inside a segment of n positions and m slots, slot r stands at position
r·(n − 1)/(m − 1), so that both ends are kept. Positions between two are read at the nearer one
(alpha 0), by linear interpolation (alpha 1), or by a blend. Padding is never read.

Shapes: B batch, L layers, H heads, T/T_t teacher positions, T_s student slots, D head dim,
S segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TimeWarp(NamedTuple):
    """The positions that each slot reads, to apply to any tensor with a time axis, or to plot.

    A slot's value is (1 − weight)·x[lower] + weight·x[upper]; indices refer to the T axis.
    """

    lower: Tensor
    """[B, T_s], the earlier position that a slot reads."""
    upper: Tensor
    """[B, T_s], the later one: the next valid position of the segment, or the same."""
    weight: Tensor
    """[B, T_s] float, the share of the later one."""
    mask: Tensor | None = None
    """[B, T_s] bool, False at slots that a sample does not use; None: all are in use."""

    @property
    def blends(self) -> Tensor:
        """[B, T_s] bool: the slots that read between two positions."""
        return (self.weight > 0) & (self.weight < 1)

    def apply_parts(
        self, mask: Tensor | None, segment_ids: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """A trace's mask, segments and positions, [B, T], at the slots.

        Slots in use are valid; a slot's segment is that of the earlier position it reads, its
        position the rounded interpolation.
        """
        if self.mask is not None or mask is None:
            mask = self.mask
        else:
            mask = torch.ones_like(self.lower, dtype=torch.bool)
        if segment_ids is not None:
            segment_ids = segment_ids.gather(1, self.lower)
        if positions is not None:
            positions = self.interpolate(positions).round().to(positions.dtype)
        return mask, segment_ids, positions

    def select(self, slots_BN: Tensor, mask_BN: Tensor | None = None) -> TimeWarp:
        """The warp at some of its slots, by their index [B, N]; `mask_BN` is that of the result."""
        lower, upper, weight = (part.gather(1, slots_BN) for part in self[:3])
        return TimeWarp(lower, upper, weight, mask_BN)

    def apply(self, x_BLHTD: Tensor) -> Tensor:
        """Interpolate [B, L, H, T, D] to [B, L, H, T_s, D], by one gather."""
        B, L, H, T, D = x_BLHTD.shape
        read_BR = torch.cat([self.lower, self.upper], dim=1)
        row_N = torch.arange(B * L * H, device=x_BLHTD.device).view(B, L * H, 1) * T
        index = (row_N + read_BR[:, None]).flatten()
        read = x_BLHTD.reshape(-1, D).index_select(0, index)
        lower, upper = read.view(B, L, H, 2, -1, D).unbind(3)
        return torch.lerp(lower, upper, self.weight.to(x_BLHTD.dtype)[:, None, None, :, None])

    def interpolate(self, x_BT: Tensor) -> Tensor:
        """Interpolate numbers per position, [B, T] to [B, T_s], in the weight's precision."""
        dtype = self.weight.dtype
        lower, upper = x_BT.gather(1, self.lower).to(dtype), x_BT.gather(1, self.upper).to(dtype)
        return torch.lerp(lower, upper, self.weight)


class TimeWarper(nn.Module):
    """Warp a trace's time axis to another length, per sample and per segment.

    Without `ratio_map` a segment gets slots in proportion to its own valid length. A segment that
    has a positive share gets at least one slot wherever T_s allows one for each. A segment with
    one slot reads its last position, which has seen all the others.

    Args:
        num_segments: S; segment ids run from 0 to S − 1, −1 is padding.
        ratio_map: {segment: density}, how many slots each position of the segment counts for,
            against 1 for a segment that is not named; 0 leaves the segment out.
        alpha_map: {segment: alpha}, 0 reads the nearest position (the later of two), 1 (for a
            segment that is not named) interpolates, between them a blend of both.

    Raises:
        ValueError: an option outside these ranges.

    Example:
        >>> ramp = torch.arange(10.0).view(1, 1, 1, 10, 1)
        >>> TimeWarper()(ramp, None, 5).flatten()
        tensor([0.0000, 2.2500, 4.5000, 6.7500, 9.0000])
    """

    def __init__(
        self,
        num_segments: int = 3,
        ratio_map: Mapping[int, float] | None = None,
        alpha_map: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        if num_segments < 1:
            raise ValueError(f"num_segments={num_segments} must be at least 1")
        self.num_segments = num_segments
        self.ratios = self._per_segment("ratio_map", ratio_map, limit=float("inf"))
        self.alphas = self._per_segment("alpha_map", alpha_map, limit=1.0)

    def _per_segment(
        self, name: str, given: Mapping[int, float] | None, limit: float
    ) -> tuple[float, ...]:
        values = [1.0] * self.num_segments
        for segment, value in (given or {}).items():
            if not 0 <= segment < self.num_segments:
                raise ValueError(
                    f"{name} names segment {segment}, but segments run from 0 to "
                    f"{self.num_segments - 1}"
                )
            if not 0 <= value <= limit or value == float("inf"):
                bound = "finite and not negative" if limit > 1 else "between 0 and 1"
                raise ValueError(f"{name}[{int(segment)}]={value} must be {bound}")
            values[segment] = float(value)
        return tuple(values)

    def forward(
        self,
        x: Tensor,
        segment_ids: Tensor | None,
        target_length: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Warp [B, L, H, T_t, D] to [B, L, H, target_length, D].

        Args:
            x: [B, L, H, T_t, D].
            segment_ids: [B, T_t], −1 at padding; None takes all valid positions as one segment,
                number 0.
            target_length: T_s.
            mask: [B, T_t], False at padding; None leaves that to the segment ids.

        Raises:
            ValueError: as `plan` does.
        """
        if x.ndim != 5:
            raise ValueError(f"x must be [B, L, H, T, D], got shape {list(x.shape)}")
        if segment_ids is None:
            segment_ids = x.new_zeros(x.shape[0], x.shape[3], dtype=torch.long)
        elif segment_ids.shape != (x.shape[0], x.shape[3]):
            raise ValueError(
                f"segment_ids must be [{x.shape[0]}, {x.shape[3]}] for x of shape "
                f"{list(x.shape)}, got {list(segment_ids.shape)}"
            )
        return self.plan(segment_ids, target_length, mask).apply(x)

    @torch.no_grad()
    def plan(
        self, segment_ids_BT: Tensor, target_length: int, mask_BT: Tensor | None = None
    ) -> TimeWarp:
        """Where every slot reads.

        Args:
            segment_ids_BT: [B, T_t], −1 at padding.
            target_length: T_s.
            mask_BT: [B, T_t], False at padding.

        Raises:
            ValueError: a length below 1, a segment id out of range, segments that go back in
                time, or a sample with nothing to read.
        """
        if target_length < 1:
            raise ValueError(f"target_length={target_length} must be at least 1")
        segments_BT, valid_BT = self._valid(segment_ids_BT, mask_BT)
        counts_BS = self._counts(segments_BT, valid_BT)
        ratio_S = torch.tensor(self.ratios, dtype=torch.float64, device=counts_BS.device)
        nothing_B = (counts_BS * ratio_S).sum(1) == 0
        if nothing_B.any():
            raise ValueError(
                f"sample {int(nothing_B.long().argmax())} of the batch has no valid position in "
                f"a segment that the time warp reads; leave the sample out or mend its mask"
            )
        slots_BS = _share_out(counts_BS * ratio_S, target_length)
        return self._read(valid_BT, counts_BS, slots_BS, target_length)

    @torch.no_grad()
    def plan_slots(
        self, segment_ids_BT: Tensor, slots_BS: Tensor, mask_BT: Tensor | None = None
    ) -> TimeWarp:
        """The positions that every slot reads, for samples that differ in the slots of a segment.

        Args:
            segment_ids_BT: [B, T_t], −1 at padding.
            slots_BS: [B, S], the number of slots that read each segment; ratios are ignored.
            mask_BT: [B, T_t], False at padding.

        Returns:
            A warp to the largest number of slots of any sample; its mask is False at the slots
            that a sample does not have.

        Raises:
            ValueError: as `plan` does, and slots for a segment that a sample does not have.

        Example:
            >>> ids, slots = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 2, 0]])
            >>> TimeWarper().plan_slots(ids, slots).lower
            tensor([[1, 2, 4]])
        """
        segments_BT, valid_BT = self._valid(segment_ids_BT, mask_BT)
        counts_BS = self._counts(segments_BT, valid_BT)
        if slots_BS.shape != counts_BS.shape:
            raise ValueError(
                f"slots must be {list(counts_BS.shape)}, got shape {list(slots_BS.shape)}"
            )
        without_BS = (slots_BS > 0) & (counts_BS == 0)
        if without_BS.any():
            sample, segment = without_BS.nonzero()[0].tolist()
            raise ValueError(
                f"sample {sample} of the batch has no valid position in segment {segment}, which "
                f"{int(slots_BS[sample, segment])} slots should read; leave the sample out or "
                f"mend its mask"
            )
        total_B1 = slots_BS.sum(1, keepdim=True)
        length = max(int(total_B1.max()), 1)
        warp = self._read(valid_BT, counts_BS, slots_BS, length)
        in_use_BT = torch.arange(length, device=total_B1.device) < total_B1
        return warp if in_use_BT.all() else warp._replace(mask=in_use_BT)

    @torch.no_grad()
    def slots(self, segment_ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """The number of slots that each segment gets from its ratio alone, [B, S].

        A segment of n positions has ratio·n slots, halves rounded up, and at least one if both
        are above 0. At a ratio of 1 every position has its own slot.

        Raises:
            ValueError: a segment id out of range, or segments that go back in time.

        Example:
            >>> TimeWarper(ratio_map={1: 0.5}).slots(torch.tensor([[0, 1, 1, 1, -1]]))
            tensor([[1, 2, 0]])
        """
        counts_BS = self._counts(*self._valid(segment_ids_BT, mask_BT))
        ratio_S = torch.tensor(self.ratios, dtype=torch.float64, device=counts_BS.device)
        share_BS = counts_BS * ratio_S
        return torch.where(share_BS > 0, (share_BS + 0.5).floor().clamp(min=1), 0).long()

    def _counts(self, segments_BT: Tensor, valid_BT: Tensor) -> Tensor:
        counts_BS = segments_BT.new_zeros(len(segments_BT), self.num_segments)
        return counts_BS.scatter_add_(1, segments_BT.clamp(min=0), valid_BT.long())

    def _read(self, valid_BT: Tensor, counts_BS: Tensor, slots_BS: Tensor, length: int) -> TimeWarp:
        """Spread each segment's slots over its positions."""
        alpha_S = torch.tensor(self.alphas, device=valid_BT.device)
        slot_T = torch.arange(length, device=valid_BT.device)
        slot_BT = slot_T.expand(len(valid_BT), -1).contiguous()
        # slots behind the last one of a sample read its last position
        slot_BT = slot_BT.minimum((slots_BS.sum(1, keepdim=True) - 1).clamp(min=0))
        segment_BT = torch.searchsorted(slots_BS.cumsum(1), slot_BT, right=True)
        segment_BT = segment_BT.clamp(max=self.num_segments - 1)

        def of_slot(part_BS: Tensor) -> Tensor:
            return part_BS.gather(1, segment_BT)

        start_BT = of_slot(counts_BS.cumsum(1) - counts_BS)
        rank_BT = slot_BT - of_slot(slots_BS.cumsum(1) - slots_BS)
        last_BT, last_rank_BT = (of_slot(part_BS) - 1 for part_BS in (counts_BS, slots_BS))
        last_BT = last_BT.clamp(min=0)
        # Whole numbers, so that a slot that falls on a position does so exactly.
        steps_BT = torch.where(last_rank_BT > 0, rank_BT * last_BT, last_BT)
        span_BT = last_rank_BT.clamp(min=1)
        rest_BT = steps_BT % span_BT
        lower_BT = steps_BT // span_BT
        upper_BT = torch.minimum(lower_BT + 1, last_BT)
        alpha_BT = alpha_S[segment_BT]
        nearest_BT = (2 * rest_BT >= span_BT).to(alpha_BT.dtype)
        weight_BT = alpha_BT * (rest_BT / span_BT) + (1 - alpha_BT) * nearest_BT

        order_BT = valid_BT.long().argsort(dim=1, descending=True, stable=True)
        return TimeWarp(
            order_BT.gather(1, start_BT + lower_BT),
            order_BT.gather(1, start_BT + upper_BT),
            weight_BT,
        )

    def _valid(self, segment_ids_BT: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Segments and validity, both [B, T], of a batch that can be warped."""
        segments_BT = segment_ids_BT.long()
        valid_BT = segments_BT >= 0
        if mask_BT is not None:
            if mask_BT.shape != segments_BT.shape:
                raise ValueError(
                    f"mask must be {list(segments_BT.shape)}, got {list(mask_BT.shape)}"
                )
            valid_BT = valid_BT & mask_BT.bool()
        seen_BT = segments_BT.masked_fill(~valid_BT, -1)
        if (highest := int(seen_BT.max())) >= self.num_segments:
            raise ValueError(
                f"segment_ids hold {highest}, but num_segments={self.num_segments}: ids run from "
                f"0 to {self.num_segments - 1}"
            )
        backwards_B = ((seen_BT.cummax(dim=1).values != segments_BT) & valid_BT).any(dim=1)
        if backwards_B.any():
            raise ValueError(
                f"sample {int(backwards_B.long().argmax())} of the batch has a segment that "
                f"comes after a later one; segment ids must not fall along a sample"
            )
        return segments_BT, valid_BT


def _share_out(share_BS: Tensor, target_length: int) -> Tensor:
    """Slots of each segment [B, S]: largest remainder, then one for those left with none."""
    active_BS = share_BS > 0
    quota_BS = target_length * share_BS / share_BS.sum(1, keepdim=True)
    slots_BS = quota_BS.floor().long()
    rest_BS = (quota_BS - slots_BS).masked_fill(~active_BS, -1)
    rank_BS = rest_BS.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    slots_BS += rank_BS < target_length - slots_BS.sum(1, keepdim=True)
    allowed_B = active_BS.sum(1) <= target_length
    for segment in range(share_BS.shape[1]):
        needs_B = active_BS[:, segment] & (slots_BS[:, segment] == 0) & allowed_B
        giver_B1 = slots_BS.argmax(dim=1, keepdim=True)
        slots_BS.scatter_add_(1, giver_B1, -needs_B[:, None].long())
        slots_BS[:, segment] += needs_B
    return slots_BS
