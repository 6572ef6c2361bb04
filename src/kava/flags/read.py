"""Values as they are written: on a command line, in a file."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kava.flags.check import KIND_WORDS, LIST_WORDS, FlagError
from kava.flags.fields import Setting
from kava.flags.words import shown

TRUE = ("true", "yes", "on", "t", "y", "1")
FALSE = ("false", "no", "off", "f", "n", "0")


def from_words(setting: Setting, words: list[str]) -> Any:
    """The value that the words behind a flag spell.

    Args:
        setting: the flag.
        words: one, or of a list one or more; numbers of a list may have commas between them.

    Raises:
        FlagError: a word of another type.
    """
    if setting.many and setting.kind in (int, float):
        words = [part for word in words for part in word.split(",")]
    values = [_from_word(setting, word) for word in words]
    return values if setting.many else values[0]


def _from_word(setting: Setting, word: str) -> Any:
    if word in setting.flag.words:
        return setting.flag.words[word]
    try:
        if setting.kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[word.lower()]
        return setting.kind(word)
    except (ValueError, KeyError):
        what = KIND_WORDS[setting.kind]
        raise FlagError(setting.name, f"{setting.spelled} {shown(word)} is not {what}") from None


def is_switch_word(word: str) -> bool:
    """Whether a word says on or off."""
    return word.lower() in (*TRUE, *FALSE)


def from_file(setting: Setting, value: Any) -> Any:
    """A value of a YAML or JSON file, as its flag's type has it.

    A text is taken for a number only where it is one: YAML 1.1 reads 5e-5 as text.

    Raises:
        FlagError: a value of another type; the message names the key alone.
    """
    if value is None and setting.default is None:
        return None
    if not setting.many:
        return _from_item(setting, value)
    if isinstance(value, list):
        with suppress(FlagError):
            return [_from_item(setting, item) for item in value]
    raise FlagError(
        setting.name, f"{setting.name}: {shown(value)} is not a list of {LIST_WORDS[setting.kind]}"
    )


def _from_item(setting: Setting, value: Any) -> Any:
    """The same, of one value."""
    if isinstance(value, str) and value in setting.flag.words:
        return setting.flag.words[value]
    if setting.kind is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    elif type(value) is setting.kind:
        return value
    raise FlagError(
        setting.name, f"{setting.name}: {shown(value)} is not {KIND_WORDS[setting.kind]}"
    )
