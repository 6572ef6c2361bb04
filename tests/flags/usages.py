"""What every command is called with, for tests that hold all of them to the same."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kava.cli import COMMANDS
from kava.commands.compare_evictions import USAGE as COMPARE_EVICTIONS
from kava.flags import Parts, Usage
from kava.flags.fields import Setting

USAGES: dict[str, Usage[Any]] = {"compare_evictions.py": COMPARE_EVICTIONS}
for _command in COMMANDS:
    if _command.usage is not None:
        _module, _, _name = _command.usage.partition(":")
        _usage = getattr(import_module(_module), _name)
        if isinstance(_usage, Parts):
            USAGES.update({part.prog: part for part in _usage.parts.values()})
        else:
            USAGES[_usage.prog] = _usage


def numbers_of(usage: Usage[Any]) -> list[Setting]:
    """The flags that take numbers."""
    return [one for one in usage.settings.values() if one.kind in (int, float)]


def name_of(value: object) -> str | None:
    """For the ids of parametrised tests."""
    return value.prog.removeprefix("kava ") if isinstance(value, Usage) else None
