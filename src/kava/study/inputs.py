"""The data and models of a plan, looked at before the plan is locked.

What is on this machine is looked at: files, folders, built-in models and the built-in game. A name
on the hub is left to the runs, since a dry run loads nothing from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kava.data.rationales import check_rationales
from kava.data.sources import is_local
from kava.dataset_names import MIX_PREFIX, is_mix, mix_parts
from kava.models.load import is_local_model
from kava.study.plan import Arm, Plan
from kava.study.questions import test_records
from kava.study.settings import train_config
from kava.train.config import TrainConfig
from kava.train.data import read_data, records_of
from kava.train.limits import check_models
from kava.train.teacher_names import teachers_of


def check_inputs(plan: Plan, arms: Sequence[Arm], path: Path) -> None:
    """Refuse a plan whose data or models cannot be read, or whose test was trained on.

    Args:
        plan: the study.
        arms: those that will be run.
        path: the plan's file, for messages.

    Raises:
        ValueError: the first thing that is wrong.
        OSError: a model's folder or a data file that cannot be read.

    Example:
        >>> check_inputs(plan, plan.arms, Path("plan.yaml"))
    """
    config = train_config(plan, arms[0], plan.seeds[0], "outputs/study")
    with _named(str(path)):
        for arm in arms:
            with _named(f"arms.{arm.name}"):
                check_local_models(train_config(plan, arm, plan.seeds[0], "outputs/study"))
        _check_data(plan, config)


def check_local_models(config: TrainConfig) -> None:
    """Refuse models that a run cannot use, where all of them are on this machine.

    Raises:
        OSError, ValueError: as `kava.train.limits.check_models`.
    """
    for file in config.teacher_reasoning or ():
        check_rationales(file)
    names = [config.model_name, *(one.model for one in teachers_of(config))]
    if all(map(is_local_model, names)):
        check_models(config)


def _check_data(plan: Plan, config: TrainConfig) -> None:
    data = plan.data
    if is_local(data.train) and is_local(data.test):
        train, _ = read_data(config)
        test_records(config, data, train)
        return
    for key, split in (("train", data.train_split), ("test", data.test_split)):
        with _named(f"data.{key}"):
            for part in _parts(getattr(data, key)):
                if is_local(part):
                    records_of(config, part, split)


def _parts(name: str) -> list[str]:
    """The sources of a data set, each as a name of its own."""
    return [f"{MIX_PREFIX}{part}=1" for part in mix_parts(name)] if is_mix(name) else [name]


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name in an error what it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
