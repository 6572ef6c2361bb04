"""Read the options behind the question mark of a name: `?size=200&seed=1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from kava.flags.check import FlagError
from kava.flags.fields import Setting
from kava.flags.read import from_words
from kava.flags.words import listed, near


def read_options(task: str, options: str, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values of a name's options.

    Args:
        task: what stands before the question mark, for messages.
        options: what stands behind it. A plus sign means itself, and a list has commas.
        settings: the options that there are.

    Raises:
        ValueError: an unknown option, one that stands twice, or a word of another type.

    Example:
        >>> from kava.flags.fields import Flag
        >>> size = Setting("size", int, False, 500, Flag(help="problems"), "")
        >>> read_options("a task", "size=20", {"size": size})
        {'size': 20}
    """
    values: dict[str, Any] = {}
    for name, word in parse_qsl(options.replace("+", "%2B"), keep_blank_values=True):
        if name not in settings:
            raise ValueError(
                f"{task} has no option {name!r}{near(name, settings)}; choose from "
                f"{listed(settings)}"
            )
        if name in values:
            raise ValueError(f"{task}?{options}: {name} stands there twice; give it one value")
        try:
            words = word.split(",") if settings[name].many else [word]
            values[name] = from_words(settings[name], words)
        except FlagError as error:
            what = str(error).partition(" is not ")[2]
            raise ValueError(f"{task}?{name}={word} must be {what}") from None
    return values
