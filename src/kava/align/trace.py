"""Aligning a whole trace: the cache together with its mask, segments, positions and scope.

Shapes: B batch, L_t/L_s layers, H_t/H_s heads, T_t/T_s positions; H heads of the result.
"""

from __future__ import annotations

from torch import Tensor

from kava.align.aligner import MapProjectionAligner
from kava.align.time.trace import refuse_blended_rotations
from kava.attention import AttentionForm
from kava.names import TEACHER_TO_STUDENT
from kava.trace import KVTrace, Scope


def align_trace(
    aligner: MapProjectionAligner, trace: KVTrace, target_length: int | None = None
) -> KVTrace:
    """Align a teacher's trace, with all of its parts.

    A mixed vector belongs to one position only if everything that went into it does: mixing
    heads needs positions shared by the heads of a layer, mixing layers needs positions shared by
    the whole model, and warping time needs keys that were not rotated to different positions.
    In the direction student to teacher no heads are mixed here: they may keep positions of their
    own, as long as each student layer reads one teacher layer.

    Args:
        aligner: made for the trace's geometry.
        trace: the teacher's, possibly compressed.
        target_length: T_s; None keeps the positions, except under a ratio or alpha map.

    Returns:
        A trace in the student's layers, with the student's heads, or in the direction student to
        teacher still with the teacher's. After a time warp all T_s slots are valid, a slot's
        segment is that of the position it reads, and its position the rounded interpolation of
        those it reads. The scope is the input's.

    Raises:
        ValueError: kept positions that differ among what would be mixed; rotated keys of
            different positions that would be interpolated.

    Example:
        >>> aligner = MapProjectionAligner(
        ...     num_teacher_layers=4, num_student_layers=2, num_teacher_heads=6,
        ...     num_student_heads=4, teacher_head_dim=16, student_head_dim=16,
        ... )
        >>> keys = torch.randn(2, 4, 6, 10, 16)
        >>> align_trace(aligner, KVTrace(keys, keys), target_length=5).keys.shape
        torch.Size([2, 2, 4, 5, 16])
    """
    scope = _scope(trace)
    _check_scope(aligner, scope)
    segment_ids = _to_student(aligner, trace.segment_ids, scope)
    positions = _to_student(aligner, trace.positions, scope)
    # Segment ids that differ by layer are no time axis; only an unwarped trace may have them.
    common = segment_ids if segment_ids is not None and segment_ids.ndim == 2 else None
    mask = trace.mask
    warp = aligner.time_warp(trace.keys, common, target_length, mask)
    if warp is not None:
        if scope != "model":
            raise ValueError(
                f"scope={scope!r} keeps other positions in every {scope}, so they have no common "
                f"time to warp; compress with scope='model' or leave target_length out"
            )
        refuse_blended_rotations(trace, warp)
    keys, values, queries = aligner(
        trace.keys, trace.values, trace.queries, common, target_length, mask
    )
    if warp is not None:
        mask, segment_ids, positions = warp.apply_parts(mask, segment_ids, positions)
    return KVTrace(
        keys=keys,
        values=values,
        queries=queries,
        mask=mask,
        segment_ids=segment_ids,
        positions=positions,
        scope=trace.scope,
        rotated=trace.rotated,
        attention=_attention(aligner, trace),
    )


def _attention(aligner: MapProjectionAligner, trace: KVTrace) -> AttentionForm | None:
    """The attention form of the result: that of the trace, layer by layer, if no heads are mapped.

    Mapped queries and keys are in the student's geometry and are compared in the student's form.
    A layer that is mixed from several has the form of the one with the largest weight.
    """
    if trace.attention is None or _mixes_heads(aligner):
        return None
    return trace.attention.layers(aligner.layer_weights.argmax(dim=1).tolist())


def _check_scope(aligner: MapProjectionAligner, scope: Scope) -> None:
    """Refuse to mix vectors of different positions."""
    if scope == "head" and _mixes_heads(aligner):
        raise ValueError(
            "scope='head' keeps other positions in every head, and the aligner would mix "
            "heads; compress with scope='model', or with scope='layer' and layer_map='skip'"
        )
    if scope != "model" and any(len(row) > 1 for row in aligner.layer_rows):
        raise ValueError(
            f"scope={scope!r} keeps other positions in every layer, and the layer map would mix "
            f"layers; compress with scope='model' or use layer_map='skip'"
        )


def _mixes_heads(aligner: MapProjectionAligner) -> bool:
    return aligner.mode != "identity" and aligner.direction == TEACHER_TO_STUDENT


def _scope(trace: KVTrace) -> Scope:
    """The trace's scope; if it is not recorded, it follows from the shapes of the parts."""
    if trace.scope is not None:
        return trace.scope
    parts = (trace.segment_ids, trace.positions)
    return "head" if any(part is not None and part.ndim == 4 for part in parts) else "model"


def _to_student(aligner: MapProjectionAligner, part: Tensor | None, scope: Scope) -> Tensor | None:
    """A part [B, T] or [B, L_t, H_t, T] at the result's layers and heads."""
    if part is None or part.ndim == 2:
        return part
    if scope == "model":
        return part[:, 0, 0]
    source_S = aligner.layer_weights.argmax(dim=1)
    if not _mixes_heads(aligner):
        return part[:, source_S]
    return part[:, source_S, :1].expand(-1, -1, aligner.student.num_heads, -1)
