"""Time the alignment on real keys and values: `kava profile`, on the model that MODEL names."""

import os
import sys

from kava.cli import run
from kava.commands.profile import main

if __name__ == "__main__":
    chosen = ["--model_name", os.environ["MODEL"]] if os.environ.get("MODEL") else []
    sys.exit(run(main, chosen + sys.argv[1:]))
