"""The batch of a data set that takes the most memory: its longest samples."""

from __future__ import annotations

from collections.abc import Sequence

from kava.data.encoded import Encoded


def longest(samples: Sequence[Encoded], size: int) -> list[Encoded]:
    """The samples with the most tokens, of the student's text and the teachers', longest first.

    Args:
        samples: encoded samples.
        size: how many; all of them where there are fewer.

    Example:
        >>> [len(sample.input_ids) for sample in longest(samples, 2)]
        [71, 69]
    """
    return sorted(samples, key=num_tokens, reverse=True)[:size]


def num_tokens(sample: Encoded) -> int:
    """The tokens of a sample in the texts of the student and of all teachers."""
    texts = [sample.teacher, *(text for side in sample.sides for text in (side.text, side.own))]
    return len(sample.input_ids) + sum(len(t.encoded.input_ids) for t in texts if t is not None)
