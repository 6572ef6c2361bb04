"""Prompt, reasoning and answer: where they begin in a text, and which tokens they hold.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import numpy as np


def token_segments(
    offsets: np.ndarray, reasoning_start: np.ndarray | int, answer_start: np.ndarray | int
) -> np.ndarray:
    """The segment of every token, from the characters it covers.

    A token belongs to the segment in which its last character lies: of " 72", whose blank ends
    the cue, the number decides. A token that covers no character (a begin or end mark) belongs
    to the segment of the token before it.

    Args:
        offsets: [..., T, 2] begin and end of every token, in characters.
        reasoning_start: [...] the character at which the reasoning begins.
        answer_start: [...] the character at which the answer begins.

    Returns:
        [..., T] int64: 0 prompt, 1 reasoning, 2 answer; never falling along T.

    Example:
        >>> token_segments(np.array([[0, 0], [0, 2], [2, 4], [4, 7]]), 2, 4)
        array([0, 0, 1, 2])
    """
    last = offsets[..., 1] - 1
    reasoning = last >= np.asarray(reasoning_start)[..., None]
    answer = last >= np.asarray(answer_start)[..., None]
    return np.maximum.accumulate(reasoning.astype(np.int64) + answer, axis=-1)
