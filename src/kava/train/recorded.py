"""The configuration of an earlier run, as its checkpoint records it."""

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
    """Values of a run's configuration, each of the type that its flag has.

    Limits and choices are not looked at: they may be others in the version that wrote them.

    Args:
        settings: a checkpoint's, with the run's configuration under "config"; may have none.
        names: of settings of `TrainConfig`; those that are not recorded are left out.

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
    """Most tokens of an answer: what is given, or what the run had; None where it had none.

    Raises:
        ValueError: the checkpoint holds something else than a number.
    """
    if given is not None:
        return given
    return recorded_values(settings, ["max_new_tokens"]).get("max_new_tokens")


def _as_recorded(setting: Setting, value: object) -> str:
    return f"the checkpoint's {SETTINGS_FILE} is damaged: config.{setting.name} {shown(value)}"
