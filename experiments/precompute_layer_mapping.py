"""Compare two models layer by layer: `kava layer-map` under the name that users know."""

import sys

from kava.cli import run
from kava.commands.layer_map import main

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
