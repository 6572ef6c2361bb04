"""A whole trace at the slots of a time warp: keys, values, queries, mask, segments, positions.

Shapes: B batch, L layers, H heads, T_s slots, D head dim.
"""

from __future__ import annotations

from dataclasses import replace

from kava.align.time.time_warp import TimeWarp
from kava.trace import KVTrace


def warp_trace(trace: KVTrace, warp: TimeWarp) -> KVTrace:
    """Read a trace, with all of its parts, at the slots of a warp.

    Args:
        trace: with positions shared by all layers and heads.
        warp: from `TimeWarper.plan` or `plan_slots`, for the trace's segments.

    Returns:
        [B, L, H, T_s, D]; parts as in `align_trace`. Slots that a sample does not have are masked.

    Raises:
        ValueError: rotated keys of different positions that would be interpolated.

    Example:
        >>> keys = torch.arange(3.0).view(1, 1, 1, 3, 1)
        >>> from kava.align import TimeWarper
        >>> warp = TimeWarper().plan(torch.zeros(1, 3, dtype=torch.long), 2)
        >>> warp_trace(KVTrace(keys, keys), warp).keys.flatten().tolist()
        [0.0, 2.0]
    """
    refuse_blended_rotations(trace, warp)
    mask, segment_ids, positions = warp.apply_parts(trace.mask, trace.segment_ids, trace.positions)
    return replace(
        trace,
        keys=warp.apply(trace.keys),
        values=warp.apply(trace.values),
        queries=None if trace.queries is None else warp.apply(trace.queries),
        mask=mask,
        segment_ids=segment_ids,
        positions=positions,
    )


def refuse_blended_rotations(trace: KVTrace, warp: TimeWarp) -> None:
    """Refuse to interpolate keys that were rotated to different positions.

    Their mean would carry the rotation of no position.

    Raises:
        ValueError: a rotated trace with positions, and a warp that reads between positions.
    """
    if trace.rotated and trace.positions is not None and bool(warp.blends.any()):
        raise ValueError(
            "the time warp would interpolate keys that carry the rotation of different "
            "positions; un-rotate them first, or read the nearest position "
            "(alpha_map={0: 0, 1: 0, 2: 0})"
        )
