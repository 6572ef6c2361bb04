"""Records that a run is given in place of those that its flags name."""

from __future__ import annotations

from dataclasses import dataclass

from kava.data.records import Record


@dataclass(frozen=True)
class GivenRecords:
    """Records that a run is given, in place of those that its names mean.

    Attributes:
        train: to train on; None: what `dataset_name` means.
        eval: to evaluate on; None: what `eval_dataset_name` means, or a part of the others.
    """

    train: list[Record] | None = None
    eval: list[Record] | None = None


NOTHING_GIVEN = GivenRecords()
