"""Choose the records that a student is scored on, and check if it was trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kava.data.files import is_one_split
from kava.data.leakage import leak_warning
from kava.data.records import Record
from kava.data.sources import load_records
from kava.data.splits import data_hash, split_records
from kava.data_settings import RowSettings
from kava.dataset_names import builtin_task
from kava.flags import flags_of
from kava.train.recorded import recorded_values

_RECORDED = (
    *("dataset_name", "split", "eval_dataset_name", "eval_split", "eval_size", "seed", "overflow"),
    *flags_of(RowSettings),
)
"""Settings read from the run's configuration; runs of earlier versions lack some."""


class Evaluation(NamedTuple):
    """Records to score, their source, and a warning about them, if any."""

    records: list[Record]
    dataset_name: str
    split: str
    data_hash: str
    warning: str | None


def evaluation_records(
    settings: Mapping[str, Any],
    *,
    dataset_name: str | None = None,
    split: str | None = None,
    subset_size: int | None = None,
    fields: Mapping[str, str | list[str]] | None = None,
) -> Evaluation:
    """Read the records for scoring a checkpoint.

    Args:
        settings: the checkpoint's settings, with the run's configuration under "config".
        dataset_name: a name for `load_records`. None: the run's own evaluation data, else the test
            split of its training data, or, if that is one file without splits, the part that the
            run held out.
        split: "train" or "test"; None: the run's evaluation split, else "test".
        subset_size: number of random records; None takes all.
        fields: field names (`question_field`, …) and triggers that replace the run's.

    Raises:
        ValueError: no data set is known, or the data cannot be read.

    Example:
        >>> evaluation_records(student.settings, subset_size=100).records
    """
    run = recorded_values(settings, _RECORDED)
    own = dataset_name is None
    if dataset_name is None:
        dataset_name = run.get("eval_dataset_name") or run.get("dataset_name")
        if dataset_name is None:
            raise ValueError("the checkpoint names no data set: pass --dataset_name")
        split = split or (run.get("eval_split") if run.get("eval_dataset_name") else None)
    split = split or "test"
    recorded = {name: run[name] for name in flags_of(RowSettings) if name in run}
    options: dict[str, Any] = {
        "rows": RowSettings(**recorded | dict(fields or {})),
        # records that training leaves out are left out here too, with a warning
        "on_missing": "report" if run.get("overflow") == "skip" else "error",
    }
    one_file = own and not run.get("eval_dataset_name") and is_one_split(dataset_name)
    set_apart = one_file and run.get("eval_size", 0) > 0
    records = load_records(
        dataset_name, split=split, subset_size=None if set_apart else subset_size, **options
    )
    if set_apart:
        split = "set apart"
        records = _divided(records, run)["eval"]
        if subset_size is not None:
            records = _subset(records, subset_size)
    found = data_hash(records)
    empty = [r for r in records if not r.missing and not r.answer.strip()]
    if empty and run.get("overflow") != "skip":
        raise ValueError(f"{empty[0].named} has an empty answer, which nothing can match; mend it")
    missing = [r.id for r in records if r.missing or not r.answer.strip()]
    records = [r for r in records if not r.missing and r.answer.strip()]
    warning = None
    if found == settings.get("data_hash") or (one_file and not set_apart):
        warning = "the student was trained on these very records: the score says nothing of others"
    elif not set_apart:
        warning = _overlap(run, records, (dataset_name, split), options)
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        told = f"{len(missing)} records without their segments are left out ({names})"
        warning = told if warning is None else f"{warning}; {told}"
    return Evaluation(records, dataset_name, split, found, warning)


def _overlap(
    run: Mapping[str, Any],
    records: list[Record],
    source: tuple[str, str],
    options: Mapping[str, Any],
) -> str | None:
    """A warning about questions that are also in the training data, as in GSM8K-Aug's valid."""
    name = run.get("dataset_name")
    if name is None:
        return None
    task, (scored, split) = builtin_task(name), source
    if task is not None and (builtin_task(scored), split) == (task, "test"):
        return None  # the splits of a built-in task share no problem, whatever its options
    try:
        seen = load_records(name, split=run.get("split", "train"), **options)
    except (ValueError, OSError):
        return (
            f"the training data, {name}, cannot be read here: whether they hold these questions "
            f"too was not looked at"
        )
    if run.get("eval_size") and not run.get("eval_dataset_name"):
        seen = _divided(seen, run)["train"]
    return leak_warning(seen, records, "questions")


def _divided(records: list[Record], run: Mapping[str, Any]) -> dict[str, list[Record]]:
    """The records that the run trained on, and those that it held out."""
    sizes = {"train": len(records) - run["eval_size"], "eval": run["eval_size"]}
    return split_records(records, sizes, seed=run.get("seed", 0))


def _subset(records: list[Record], size: int) -> list[Record]:
    if not 1 <= size <= len(records):
        raise ValueError(
            f"subset_size={size} must be from 1 to the {len(records)} records that were set apart"
        )
    return split_records(records, {"taken": size, "left": len(records) - size})["taken"]
