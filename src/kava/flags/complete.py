"""What a shell offers behind a command: its flags, their words, the parts of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kava.flags.parts import Parts
from kava.flags.usage import ALL, HELP, Usage


class Offer(NamedTuple):
    """One of them, as click's completion reads it."""

    value: str
    help: str = ""
    type: str = "plain"


def offers(usage: Usage[Any] | Parts, words: Sequence[str], begun: str) -> list[Offer]:
    """What may follow; nothing where any text may, for which a shell offers its files.

    Args:
        usage: what the command is called with.
        words: what stands behind the command already.
        begun: the beginning of the next word.

    Example:
        >>> [offer.value for offer in offers(USAGE, ["--decoding"], "s")]
        ['sequential']
    """
    return [offer for offer in _all(usage, words, begun) if offer.value.startswith(begun)]


def _all(usage: Usage[Any] | Parts, words: Sequence[str], begun: str) -> Iterator[Offer]:
    if isinstance(usage, Parts):
        if not words:
            yield from (Offer(name, part.summary) for name, part in usage.parts.items())
        elif words[0] in usage.parts:
            yield from _all(usage.parts[words[0]], words[1:], begun)
        return
    last = words[-1] if words else ""
    setting = usage.settings.get(last.removeprefix("--").replace("-", "_"))
    if last in HELP and usage.common is not None:
        yield Offer(ALL, "show every flag")
    elif last.startswith("--") and setting is not None and setting.kind is not bool:
        yield from (Offer(str(choice)) for choice in setting.flag.choices or ())
    elif begun.startswith("-"):
        yield from (Offer(f"--{name}", one.flag.help) for name, one in usage.settings.items())
        yield Offer("--help", "show the flags and leave")
