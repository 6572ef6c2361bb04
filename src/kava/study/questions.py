"""The questions that the runs of a study are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.study.plan import DataPlan

if TYPE_CHECKING:
    from kava.data.records import Record
    from kava.train.config import TrainConfig


def test_records(config: TrainConfig, data: DataPlan, train: Sequence[Record]) -> list[Record]:
    """The questions of the test, which no curve has seen.

    Args:
        config: of one of the study's runs.
        data: of its plan.
        train: what the run trains on, which must not hold a question of the test; empty if it
            does not train.

    Raises:
        ValueError: data that cannot be read, are too few for curves and test, or hold a question
            of the training data.
    """
    from kava.data.leakage import check_disjoint
    from kava.data.splits import unique_questions
    from kava.train.data import records_of

    records = records_of(config, data.test, data.test_split)
    found = unique_questions([r for r in records[config.eval_size :] if not r.missing])
    if data.test_items is not None and len(found) < data.test_items:
        raise ValueError(
            f"data: test_items {data.test_items} is more than the {len(found)} records of "
            f"{data.test} behind the first {config.eval_size}, which draw the curves"
        )
    chosen = found[: data.test_items]
    if not chosen:
        raise ValueError(
            f"data: curve_items {config.eval_size} leaves nothing of {data.test} to test on"
        )
    check_disjoint([record for record in train if not record.missing], test=chosen)
    return chosen
