"""Check the alignment on real keys and values, and print what each check saw.

    python experiments/test_v4_integration.py               # built-in models, no network
    MODEL=gpt2 python experiments/test_v4_integration.py    # any model: a hub id, a folder, …

Without MODEL a small student meets a larger teacher; with it, the model meets a frozen copy of
itself. Exits with 1 if a check fails.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kava.cli import run
from kava.flags import Usage


@dataclass(kw_only=True)
class Options:
    """What is asked for: nothing."""


USAGE = Usage(
    prog="test_v4_integration.py",
    kind=Options,
    summary="Check the alignment on real keys and values.",
    example="python experiments/test_v4_integration.py",
    more="MODEL in the environment names a model to check (a hub id, a folder, a built-in name) in "
    "place of the built-in pair.",
)


def main(argv: list[str]) -> int:
    USAGE.parse(argv)

    from alignment_checks import check_all  # loads torch

    return check_all()


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
