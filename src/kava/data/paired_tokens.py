"""One text in the tokens of two models, as labels and weights.

Shapes: S of the student's tokens, T of the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kava.align.tokens.overlap import TokenAlignmentMode
from kava.data.encoded import Encoded


class PairedTokens(NamedTuple):
    """One text in the tokens of two models."""

    student: list[str]
    teacher: list[str]
    weights_ST: list[list[float]]
    """Weight of each teacher token in each student token."""


def paired_tokens(sample: Encoded, text: str, mode: TokenAlignmentMode) -> PairedTokens | None:
    """The tokens of both models and their weights; None if both models read the same tokens."""
    if sample.teacher is None:
        return None
    # the last token, the end of sequence, has no text
    ours, theirs = (
        token_labels(text, part.offsets[:-1].tolist()) for part in (sample, sample.teacher.encoded)
    )
    weights_ST = sample.teacher.alignment.dense(mode)[:-1, :-1].tolist()
    return PairedTokens(ours, theirs, weights_ST)


def token_labels(text: str, offsets: Sequence[Sequence[int]]) -> list[str]:
    """The text that each token stands for.

    SentencePiece puts a blank before a text. If that is a separate token, it has the offsets of the
    first character, which then has more tokens than bytes.

    Example:
        >>> token_labels("Once", [(0, 1), (0, 1), (1, 4)])
        [' ', 'O', 'nce']
    """
    labels = [text[start:end] for start, end in offsets]
    first = next((at for at, label in enumerate(labels) if label), len(labels))
    alike = sum(tuple(span) == tuple(offsets[first]) for span in offsets[first:])
    if alike > 1 and len(labels[first]) == 1 and alike > len(labels[first].encode()):
        labels[first] = " "
    return labels
