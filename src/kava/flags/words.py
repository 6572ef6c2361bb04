"""Words of messages: what was meant, lists, and values that are too long to print."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_CHARACTERS = 60


def near(word: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant; empty where nothing is near.

    Example:
        >>> near("kv_wieght", ["kv_weight", "lr"])
        " (did you mean 'kv_weight'?)"
    """
    close = nearest(word, known)
    return "" if close is None else f" (did you mean {close!r}?)"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`; None where none is.

    Example:
        >>> nearest("modelname", ["teacher_name", "model_name"])
        'model_name'
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return close[0] if close else None


def listed(names: Iterable[str]) -> str:
    """Names with commas between them."""
    return ", ".join(names)


def joined(names: Iterable[str]) -> str:
    """Names as a sentence has them.

    Example:
        >>> joined(["a", "b", "c"])
        'a, b and c'
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def shown(value: object) -> str:
    """A value as a message quotes it, on one line and not too long.

    Example:
        >>> shown(3.0), shown("best")
        ('3.0', "'best'")
    """
    return shortened(repr(value))


def shortened(text: str) -> str:
    """A text that is not too long for a message."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
