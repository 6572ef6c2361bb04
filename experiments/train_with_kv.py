"""Train a student on a teacher's key/value cache: `kava train` under the name that users know."""

import sys

from kava.cli import run
from kava.commands.train import main

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
