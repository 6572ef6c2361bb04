"""Read the configuration of an earlier run from its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kava.flags import flags_of
from kava.flags.check import check_value
from kava.flags.fields import Setting
from kava.flags.words import shown
from kava.student.settings import SETTINGS_FILE
from kava.train.config import TrainConfig


def recorded_values(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Values of a run's configuration, checked for the types of their flags.

    Limits and choices are not checked: they may differ in the version that wrote them.

    Args:
        settings: a checkpoint's settings, with the run's configuration under "config", if any.
        names: settings of `TrainConfig`; unrecorded ones are left out.

    Raises:
        ValueError: a value of another type.

    Example:
        >>> recorded_values({"config": {"seed": 3}}, ["seed", "split"])
        {'seed': 3}
    """
    run, flags = settings.get("config", {}), flags_of(TrainConfig)
    found = {name: run[name] for name in names if name in run}
    for name, value in found.items():
        check_value(flags[name], value, _as_recorded, type_alone=True)
    return found


def new_tokens_of(settings: Mapping[str, Any], given: int | None) -> int | None:
    """Maximum tokens of an answer: the given value, else the run's; None if it had none.

    Raises:
        ValueError: the checkpoint's value is not a number.
    """
    if given is not None:
        return given
    return recorded_values(settings, ["max_new_tokens"]).get("max_new_tokens")


def _as_recorded(setting: Setting, value: object) -> str:
    return f"the checkpoint's {SETTINGS_FILE} is damaged: config.{setting.name} {shown(value)}"
