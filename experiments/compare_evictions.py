"""What each eviction keeps of a teacher's reasoning, and how alike the choices are."""

import sys

from kava.cli import run
from kava.commands.compare_evictions import main

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
