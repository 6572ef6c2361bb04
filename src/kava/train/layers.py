"""Parse `--distill_layers`: the student layers whose caches are matched."""

from __future__ import annotations

import re

_PART = re.compile(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*")


def parse_layers(given: str, num_layers: int | None = None) -> list[int]:
    """Parse layer numbers and ranges, separated by commas.

    Args:
        given: such as `0,2,5` or `0-5,8`; a range includes both ends.
        num_layers: number of student layers, if known.

    Raises:
        ValueError: text that names no layers, a layer named twice, or one that the student does
            not have.

    Example:
        >>> parse_layers("0-2,5")
        [0, 1, 2, 5]
    """
    layers: list[int] = []
    for part in given.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(
                f"--distill_layers {given!r} must be numbers of the student's layers, or ranges "
                f"of them, with commas between them, such as 0,2,5 or 0-5"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(
                f"--distill_layers {given}: the range {part.strip()} ends before it begins"
            )
        if num_layers is not None and last >= num_layers:
            raise ValueError(
                f"--distill_layers {given}: the student has no layer {last}, its "
                f"{num_layers} layers are 0 to {num_layers - 1}"
            )
        layers += range(first, last + 1)
    if len(set(layers)) < len(layers):
        raise ValueError(f"--distill_layers {given} names a layer twice; name each once")
    return sorted(layers)
