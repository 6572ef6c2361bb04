"""Starting a command in several processes, as users do, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(
    argv: Sequence[str], processes: int = 1, program: Sequence[str] = ("-m", "kava")
) -> subprocess.CompletedProcess[str]:
    """Run `python -m kava`, or another program, under torchrun if there are several processes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), *program, *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of stderr that are the command's own."""
    return [line for line in done.stderr.splitlines() if line.startswith("kava: ")]
