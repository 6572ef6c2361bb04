"""What a setting is held to, wherever it comes from: its type, its limits, its choices."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from kava.flags.fields import Setting, flags_of
from kava.flags.words import listed, near, shortened, shown

MOST_INT = 2**31 - 1
"""Of a whole number without a limit of its own: what the libraries underneath can count to."""

KIND_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LIST_WORDS = {str: "texts", int: "whole numbers", float: "numbers", bool: "truth values"}


class FlagError(ValueError):
    """A value that its flag does not take.

    Args:
        name: of the field.
        message: one line that names the flag, the value and what it may be.
    """

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


def as_flag(setting: Setting, value: object) -> str:
    """How a message of the command line begins: `--lr 0.0`."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return f"{setting.spelled} {shortened(str(value)) if number else shown(value)}"


def as_argument(setting: Setting, value: object) -> str:
    """How a message of a Python call begins: `lam=2.0`."""
    return f"{setting.name}={shown(value)}"


def check_fields(config: object, spelled: Callable[[Setting, object], str] = as_flag) -> None:
    """Hold every flag of a dataclass to its type, its limits and its choices.

    Numbers must be finite. A path is taken for a text, and becomes one.

    Args:
        config: an instance of a dataclass with fields made by `flag` and `needed`.
        spelled: how a message names a setting with its value.

    Raises:
        FlagError: the first value that does not fit; a `ValueError`.

    Example:
        >>> check_fields(TrainConfig())
    """
    for setting in flags_of(type(config)).values():
        value = getattr(config, setting.name)
        if isinstance(value, os.PathLike) and setting.kind is str:
            value = os.fspath(value)
            object.__setattr__(config, setting.name, value)
        check_value(setting, value, spelled)


def check_value(
    setting: Setting,
    value: Any,
    spelled: Callable[[Setting, object], str] = as_flag,
    *,
    type_alone: bool = False,
) -> None:
    """Hold one value to its flag.

    Args:
        setting: the flag.
        value: of the flag's type, or None where that is its default.
        spelled: how a message names the setting with its value.
        type_alone: leave limits and choices, which are others in other versions.

    Raises:
        FlagError: it does not fit.
    """
    if value is None and setting.default is None:
        return
    one = _check_type if type_alone else _check_one
    if setting.many:
        if not isinstance(value, list | tuple):
            _refuse(setting, value, spelled, f"is not a list of {LIST_WORDS[setting.kind]}")
        for item in value:
            one(setting, item, spelled)
    else:
        one(setting, value, spelled)


def _check_type(setting: Setting, value: Any, spelled: Callable[[Setting, object], str]) -> None:
    if not _is_a(value, setting.kind):
        _refuse(setting, value, spelled, f"is not {KIND_WORDS[setting.kind]}")
    if setting.kind is float and not _is_finite(value):
        _refuse(setting, value, spelled, "must be a finite number")


def _check_one(setting: Setting, value: Any, spelled: Callable[[Setting, object], str]) -> None:
    about = setting.flag
    _check_type(setting, value, spelled)
    if setting.kind in (int, float) and not about.allows(value):
        _refuse(setting, value, spelled, f"must be {about.range()}")
    if setting.kind is int and about.most is None and value > MOST_INT:
        _refuse(setting, value, spelled, f"must be at most {MOST_INT:,}")
    if setting.kind is str and not value and not about.empty:
        _refuse(setting, value, spelled, "is empty; name something or leave it out")
    if about.choices is not None and value not in about.choices:
        words = [str(choice) for choice in about.choices]
        more = f"; {about.hint}" if about.hint else ""
        near_by = near(str(value), words)
        _refuse(setting, value, spelled, f"is unknown{near_by}; choose {listed(words)}{more}")
    if about.check is not None:
        try:
            about.check(value)
        except ValueError as error:
            raise FlagError(setting.name, str(error)) from error


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_a(value: object, kind: type) -> bool:
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _refuse(
    setting: Setting, value: object, spelled: Callable[[Setting, object], str], what: str
) -> None:
    raise FlagError(setting.name, f"{spelled(setting, value)} {what}")


def check_once(what: str, values: Sequence[object], mend: str) -> None:
    """Refuse a value that stands twice.

    Raises:
        ValueError: such a value.
    """
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} {value} stands there twice; {mend}")
