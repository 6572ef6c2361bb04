"""Find and strip GSM8K's calculator marks, `48/2 = <<48/2=24>>24`, or keep only them.

A mark (Cobbe et al., arXiv 2110.14168) contains a calculation and its result, and the text
continues with that result, as in all 27,998 marks of GSM8K. Other text between `<<` and `>>` is not
a mark, such as in "1 << 4 is 16, and 64 >> 2 is 16".
"""

from __future__ import annotations

import re

_CALCULATION = re.compile(r"<<([-+*/0-9.,()% ]*=[-0-9.,/ ]+)>>")
_EQUATION = re.compile(r"<<([^<>=]*=[^<>]*)>>")


def strip_marks(text: str) -> str:
    """A text without its calculator marks.

    Example:
        >>> strip_marks("48/2 = <<48/2=24>>24, and <<10*450=4500>>4,500")
        '48/2 = 24, and 4,500'
        >>> strip_marks("1 << 4 is 16 and 64 >> 2 is 16")
        '1 << 4 is 16 and 64 >> 2 is 16'
    """
    return _CALCULATION.sub(lambda mark: "" if _is_followed(mark) else mark[0], text)


def equations(text: str) -> str:
    """The equations in a text's marks, `<<48/2=24>>`, one per step, joined by blanks.

    Example:
        >>> equations("She sold 48/2 = <<48 / 2 = 24>>24.")
        '<<48/2=24>>'
    """
    return " ".join(f"<<{equation.replace(' ', '')}>>" for equation in _EQUATION.findall(text))


def _is_followed(mark: re.Match[str]) -> bool:
    """Whether the result follows the mark, possibly with thousands separators."""
    result = mark[1].rpartition("=")[2].strip().replace(",", "")
    behind = mark.string[mark.end() : mark.end() + 2 * len(result)]
    return bool(result) and behind.replace(",", "").startswith(result)
