"""Flags of other programs: those that mean the same as one here, and those that get an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Same:
    """A flag that means the same as one of KaVa's, and is taken for it.

    Args:
        flag: KaVa's name.
        values: the other program's words for KaVa's, where they differ.
        several: the answer to more than one value, where KaVa takes one.
        commas: whether one word may hold several values, with commas between them.
    """

    flag: str
    values: Mapping[str, str] = field(default_factory=dict)
    several: str | None = None
    commas: bool = False

    def refusal(self, words: list[str]) -> str | None:
        """What is said of these words; None where they are taken."""
        several = len(words) > 1 or any("," in word for word in words)
        return self.several if several else None

    def translated(self, words: list[str]) -> list[str]:
        """The words as KaVa's flag takes them."""
        if self.commas:
            words = [part.strip() for word in words for part in word.split(",")]
        return [self.values.get(word, word) for word in words]


@dataclass(frozen=True)
class Instead:
    """A flag that has no counterpart, and is refused by a sentence.

    Args:
        answer: what to use and why, behind the flag's name.
        harmless: words that ask for what KaVa does anyway, so that the flag changes nothing.
        where: a setting and those of its values with which `harmless` holds; None: with all.
        counts: a setting whose number of values is harmless too.
    """

    answer: str
    harmless: tuple[str, ...] = ()
    where: tuple[str, tuple[str | None, ...]] | None = None
    counts: str | None = None

    def changes_nothing(self, words: list[str], settings: Mapping[str, object]) -> bool:
        """Whether the flag with these words asks for what KaVa does with these settings."""
        counted = None if self.counts is None else settings.get(self.counts)
        if isinstance(counted, list) and words == [str(len(counted))]:
            return True
        if not words or not all(word.lower() in self.harmless for word in words):
            return False
        return self.where is None or settings.get(self.where[0]) in self.where[1]


Known = Mapping[str, Same | Instead]

OFF = ("false", "no", "off", "0")
"""Of a switch that KaVa does not have: turned off, it asks for nothing."""
