"""The error of a file that is not what it should be."""

from __future__ import annotations

from pathlib import Path


class Malformed(ValueError):  # noqa: N818
    """A file, or a line of it, that cannot be read as what it should be.

    Args:
        source: the file.
        line: the line at fault, counted from 1; None where it is the file as a whole.
        problem: what is wrong, and where possible how to mend it; it goes on from "… line 3".

    Example:
        >>> raise Malformed("plan.yaml", 3, "has the key 'arms' twice")
        Traceback (most recent call last):
        ...
        kava.inputs.errors.Malformed: plan.yaml, line 3 has the key 'arms' twice
    """

    def __init__(self, source: str | Path, line: int | None, problem: str) -> None:
        place = f"{source}" if line is None else f"{source}, line {line}"
        super().__init__(f"{place} {problem}")
        self.line = line
        self.problem = problem
