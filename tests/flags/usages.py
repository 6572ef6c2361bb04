"""What every command is called with, for tests that hold all of them to the same."""

from __future__ import annotations

from typing import Any

from kava.cli import COMMANDS, module_of
from kava.commands.compare_evictions import USAGE as COMPARE_EVICTIONS
from kava.commands.train_several import USAGE as TRAIN_SEVERAL
from kava.flags import Parts, Usage
from kava.flags.fields import Setting

USAGES: dict[str, Usage[Any]] = {one.prog: one for one in (COMPARE_EVICTIONS, TRAIN_SEVERAL)}
for _name in COMMANDS:
    _usage = module_of(_name).USAGE
    if isinstance(_usage, Parts):
        USAGES.update({part.prog: part for part in _usage.parts.values()})
    elif _usage is not None:
        USAGES[_usage.prog] = _usage


def numbers_of(usage: Usage[Any]) -> list[Setting]:
    """The flags that take numbers."""
    return [one for one in usage.settings.values() if one.kind in (int, float)]


def name_of(value: object) -> str | None:
    """For the ids of parametrised tests."""
    return value.prog.removeprefix("kava ") if isinstance(value, Usage) else None
