"""The previous sample of each sample, which the wrong-sample control uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kava.data.encoded import Encoded


def with_neighbours(samples: Sequence[Encoded]) -> list[Encoded]:
    """Attach to each sample the one before it in the set, and to the first the last.

    In a batch of several samples the wrong sample is the previous one of the batch. A batch of one,
    and every batch of an evaluation, takes the sample before its first from the set, so that no
    batch is too small and the control does not depend on the batches.

    Args:
        samples: a data set, in order; a single sample is unchanged.

    Example:
        >>> [sample.before.id for sample in with_neighbours(samples)]
        ['c', 'a', 'b']
    """
    if len(samples) < 2:
        return list(samples)
    return [replace(own, before=samples[index - 1]) for index, own in enumerate(samples)]


def check_neighbours(samples: Sequence[Encoded], purpose: str, flag: str) -> None:
    """Refuse a set of one sample, which has no wrong sample.

    Args:
        samples: the set; an empty set is allowed.
        purpose: what the set is for, as in "train on".
        flag: the flag that decides its size.

    Raises:
        ValueError: the set has one sample.
    """
    if len(samples) == 1:
        raise ValueError(
            f"--wrong_sample gives every sample the cache of another one, but there is one sample "
            f"to {purpose}: give two or more ({flag})"
        )
