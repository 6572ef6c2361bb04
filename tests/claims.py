"""Rules for every sentence that the package makes of numbers."""

from __future__ import annotations

import re


def check_words(sentence: str) -> None:
    """No number that is none, and no plural of one."""
    for word in ("nan", "inf", "None(?! of)", "  ", " [.,]", r"\(\)"):
        assert not re.search(rf"(?<!\w){word}(?!\w)", sentence), (word, sentence)
    plural = r"(?<![\d.,])1 (seeds|runs|items|rules|treatments|arms|terms)\b|the 1 \w+"
    assert not re.search(plural, sentence), sentence


def excludes(sentence: str) -> bool:
    """Whether it says that something is ruled out, and not that it is not."""
    without = re.sub(r"(not|no gain is called) ruled? out|does not rule out", "", sentence)
    return bool(re.search(r"rul(es?|ed) out", without))


def quoted(sentence: str, before: str) -> list[float]:
    """The shares that are written as per cents behind some words."""
    return [float(found) / 100 for found in re.findall(rf"{before} ([\d.]+) %", sentence)]
