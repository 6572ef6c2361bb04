"""The sample before each one in its data set: what the wrong-sample control borrows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kava.data.encoded import Encoded


def with_neighbours(samples: Sequence[Encoded]) -> list[Encoded]:
    """Each sample with the one before it in the set, the first with the last.

    In a batch of several samples the wrong sample is the one before in the batch. A batch of one,
    and every batch of an evaluation, takes the one before its first from the set, so that no
    batch is too small and the control does not depend on how a set is cut into batches.

    Args:
        samples: a data set, in order; a single sample has no other and stays as it is.

    Example:
        >>> [sample.before.id for sample in with_neighbours(samples)]
        ['c', 'a', 'b']
    """
    if len(samples) < 2:
        return list(samples)
    return [replace(own, before=samples[index - 1]) for index, own in enumerate(samples)]


def check_neighbours(samples: Sequence[Encoded], purpose: str, flag: str) -> None:
    """Refuse a set of one sample, which has no wrong one.

    Args:
        samples: the set; an empty one is fine.
        purpose: what it is for, as in "train on".
        flag: what decides its size.

    Raises:
        ValueError: such a set.
    """
    if len(samples) == 1:
        raise ValueError(
            f"--wrong_sample gives every sample the cache of another one, but there is one sample "
            f"to {purpose}: give two or more ({flag})"
        )
