"""The one line that a command which refuses its input prints, in the form of its exit code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from kava.cli import run

USAGE = re.compile(r"[\w .-]+: error: .+; see [\w .-]+ --help")
"""Of exit code 2: the command line alone is wrong."""


def refusal(
    main: Callable[[list[str]], int], argv: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """The line of a command that must fail, and print nothing else."""
    code = run(main, argv)
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    if code == 2:
        assert USAGE.fullmatch(line)
    else:
        assert code == 1
        assert line.startswith("kava: error: ")
    return line
