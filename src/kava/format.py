"""Format numbers as text, in the same way for pages, Markdown files and pictures.

Shares are written in per cent, differences of shares in points; the ends of an interval are joined
by "to", since one of them may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

NOTHING = "–"
"""Text of a cell without a number."""


def percent(share: float) -> str:
    """A share as text.

    Example:
        >>> percent(0.0417)
        '4.2 %'
    """
    return f"{100 * share:.1f} %"


def at_least(share: float) -> str:
    """A share as text, rounded down, so that "at least" before it is true.

    Example:
        >>> at_least(0.9996), at_least(0.95)
        ('99.9 %', '95.0 %')
    """
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"


def at_most(share: float) -> str:
    """A share as text, rounded up, so that "at most" before it is true.

    Example:
        >>> at_most(0.0001), at_most(0.05)
        ('0.1 %', '5.0 %')
    """
    return f"{math.ceil(1000 * share - 1e-9) / 10:.1f} %"


def percents(low: float, high: float) -> str:
    """An interval of shares.

    Example:
        >>> percents(0.041, 0.5)
        '4.1 to 50.0 %'
    """
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def points(difference: float, unit: bool = True) -> str:
    """A difference of shares, with its sign.

    Example:
        >>> points(0.123), points(-0.02, unit=False), points(0.0)
        ('+12.3 points', '−2.0', '0.0 points')
    """
    rounded = round(100 * difference, 1)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else ""
    return f"{sign}{abs(rounded):.1f}" + (" points" if unit else "")


def point_interval(low: float, high: float) -> str:
    """An interval of differences.

    Example:
        >>> point_interval(-0.01, 0.05)
        '−1.0 to +5.0'
    """
    return f"{points(low, unit=False)} to {points(high, unit=False)}"


def p_text(p: float) -> str:
    """A p-value without its name.

    Example:
        >>> p_text(0.0314), p_text(0.00001), p_text(1.0)
        ('0.031', '< 0.0001', '1')
    """
    if math.isnan(p):
        return NOTHING
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1g}".rstrip("0")


def p_clause(p: float) -> str:
    """A p-value in a sentence.

    Example:
        >>> p_clause(0.0314), p_clause(0.00001)
        ('p = 0.031', 'p < 0.0001')
    """
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits; a dash for None.

    Example:
        >>> number(0.08312), number(12345.6), number(None)
        ('0.0831', '12,346', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value and abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 or not value else f"{value:.1e}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with `digits` digits after the decimal point; a dash for None."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.{digits}f}".replace("-", "−")


def whole(value: float | None) -> str:
    """A count, with commas; a dash for None."""
    return NOTHING if value is None else f"{round(value):,}"


def mebibytes(num_bytes: float | None) -> str:
    """A size of memory."""
    return NOTHING if num_bytes is None else f"{num_bytes / 2**20:,.0f} MiB"


def file_size(num_bytes: float) -> str:
    """A size on disk, in decimal units.

    Example:
        >>> file_size(1.62e9), file_size(3.2e7), file_size(5e4)
        ('1.6 GB', '32 MB', '0.1 MB')
    """
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.1f} GB"
    megabytes = num_bytes / 1e6
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{max(megabytes, 0.1):.1f} MB"


def seconds(value: float | None) -> str:
    """A duration.

    Example:
        >>> seconds(41.3), seconds(754.0)
        ('41 s', '12 min 34 s')
    """
    if value is None:
        return NOTHING
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def listed(names: Iterable[str], last: str = "and") -> str:
    """A list of names as in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    *most, final = names
    return f"{', '.join(most)} {last} {final}" if most else final


def counted(count: int, thing: str) -> str:
    """A number with its noun in singular or plural.

    Example:
        >>> counted(1, "seed"), counted(1200, "item")
        ('1 seed', '1,200 items')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Align cells in columns: the first `left` columns to the left, the others to the right.

    Example:
        >>> columns([["a", "10"], ["long", "9"]], left=1)
        ['a     10', 'long   9']
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
