"""GSM8K's calculator marks, `48/2 = <<48/2=24>>24`: found, stripped, or all there is.

A mark (Cobbe et al., arXiv 2110.14168) holds a calculation and its result, and the text goes on
with that result: so do all 27,998 of GSM8K. Nothing else between `<<` and `>>` is one, such as
what stands there in "1 << 4 is 16, and 64 >> 2 is 16".
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
    """The equations in a text's marks, `<<48/2=24>>`, one a step and joined by blanks.

    Example:
        >>> equations("She sold 48/2 = <<48 / 2 = 24>>24.")
        '<<48/2=24>>'
    """
    return " ".join(f"<<{equation.replace(' ', '')}>>" for equation in _EQUATION.findall(text))


def _is_followed(mark: re.Match[str]) -> bool:
    """Whether the result stands behind the mark, there perhaps with thousands separators."""
    result = mark[1].rpartition("=")[2].strip().replace(",", "")
    behind = mark.string[mark.end() : mark.end() + 2 * len(result)]
    return bool(result) and behind.replace(",", "").startswith(result)
