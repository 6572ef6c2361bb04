"""Un-rotate a whole trace, or rotate it to other positions.

Shapes: B batch, L layers, H key/value heads, T positions.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kava.rope.rotary import Rotary, rotate, unrotate
from kava.trace import KVTrace


def unrotate_trace(trace: KVTrace, rotary: Rotary | None) -> KVTrace:
    """Take the rotation out of a trace's keys and queries (`rotated` becomes False).

    Args:
        trace: a rotated trace with positions.
        rotary: the model's rotation; None for learned positions, where keys stay as they are.
            For positions selected from a text, under scaling that depends on its length:
            `rotary.at_length(length)` of the whole text.

    Raises:
        ValueError: the trace is un-rotated already, or has no positions.

    Example:
        >>> plain = unrotate_trace(trace, rotary_of(model))
    """
    if not trace.rotated:
        raise ValueError("the trace is un-rotated already")
    if rotary is None:
        return replace(trace, rotated=False)
    positions = _positions(trace)
    return replace(
        trace,
        keys=unrotate(trace.keys, positions, rotary),
        queries=None if trace.queries is None else unrotate(trace.queries, positions, rotary),
        rotated=False,
    )


def rotate_trace(trace: KVTrace, rotary: Rotary | None, positions: Tensor | None = None) -> KVTrace:
    """Rotate a trace's keys and queries to its own positions, or to others.

    A teacher's keys are compared with a student's at the student's positions, in the student's
    rotation, never at the positions of the teacher's text.

    Args:
        trace: an un-rotated trace.
        rotary: the rotation of the model to compare with; None for learned positions, where
            keys stay as they are.
        positions: [B, T] or [B, L, H, T], recorded in the result; default: the trace's own.

    Raises:
        ValueError: the trace is rotated already, or has no positions and none are given.

    Example:
        >>> target = rotate_trace(unrotate_trace(teacher_trace, teacher_rotary), student_rotary,
        ...                       positions=latent_positions)
    """
    if trace.rotated:
        raise ValueError("the trace is rotated already: call unrotate_trace first")
    if positions is not None:
        trace = replace(trace, positions=positions)
    if rotary is None:
        return replace(trace, rotated=True)
    where = _positions(trace)
    return replace(
        trace,
        keys=rotate(trace.keys, where, rotary),
        queries=None if trace.queries is None else rotate(trace.queries, where, rotary),
        rotated=True,
    )


def at_length_of(trace: KVTrace, rotary: Rotary | None) -> Rotary | None:
    """The rotation for the length of a whole text, before positions are selected from it.

    Args:
        trace: of a whole forward, before positions are selected.
        rotary: the model's; None for learned positions.

    Raises:
        ValueError: a text so long that its frequencies are unknown.

    Example:
        >>> kept_rotary = at_length_of(trace, rotary_of(model))
    """
    if rotary is None or rotary.num_positions is None:
        return rotary
    return rotary.at_length(int(_positions(trace).max()) + 1)


def _positions(trace: KVTrace) -> Tensor:
    if trace.positions is None:
        raise ValueError("the trace has no positions: give positions=… when it is captured")
    return trace.positions
