"""The tables of the pages, and the numbers in their cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class PageTable(NamedTuple):
    """A table of a page of Markdown."""

    heading: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(text: str) -> Iterator[PageTable]:
    """All tables outside blocks of code, with the heading that they stand under."""
    heading, block, inside = "", [], False
    for line in [*text.splitlines(), ""]:
        inside ^= line.startswith("```")
        if line.startswith("|") and not inside:
            block.append(tuple(plain(cell) for cell in line.strip().strip("|").split("|")))
            continue
        if block:
            yield PageTable(heading, block[0], tuple(block[2:]))
            block = []
        if line.startswith("#") and not inside:
            heading = line.lstrip("# ").strip()


def plain(cell: str) -> str:
    """A cell without its marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("**", "").replace("`", "").strip()


def numbers_of(cell: str) -> list[float]:
    """The numbers of a cell in their order: 17,024 is one of them, rank_8 is none."""
    found = re.findall(r"(?<![\w.])[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])", cell)
    return [float(number.replace(",", "").replace("−", "-")) for number in found]
