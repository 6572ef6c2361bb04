"""Distil several teachers into a student: `kava train` with the flags and defaults of a known name.

`--help` lists the flags; docs/aliases.md says what becomes of those that KaVa does not have.
"""

import sys

from kava.cli import run
from kava.commands.train_several import main

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
