"""A parent with a worker, for tests that end the parent.

python program.py FOLDER kernel|thread
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kava.cli import run
from kava.files.locks import lock_folder
from kava.jobs import parent, worker
from kava.jobs.crew import Crew
from kava.jobs.progress import ProgressView
from kava.jobs.worker import Memory
from kava.stopping import holding

# the worker imports this file too
if sys.argv[-1] == "thread":  # as on a system without prctl
    parent.sys = type("sys", (), {"platform": "other"})
else:
    parent._end_after = lambda sentinel: None
worker._settle = lambda: None  # it would load torch


@dataclass(frozen=True)
class Wait:
    """A job that says who does it, and ends when it is asked to."""

    folder: Path
    name: str = "wait"
    num_steps: int = 1
    unit: str = "steps"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def do(self, connection: Connection, memory: Memory) -> Any:
        import os

        (self.folder / "pid.partial").write_text(str(os.getpid()))
        (self.folder / "pid.partial").rename(self.folder / "pid")
        with holding():
            while not (self.folder / "go").exists():
                time.sleep(0.02)
        (self.folder / "behind the signal").touch()


def main(argv: list[str]) -> int:
    folder = Path(argv[0])
    with lock_folder(folder, "the test") as lock, ProgressView(1) as view:
        crew = Crew(1, view, lock=lock)
        try:
            list(crew.do([Wait(folder)]))
        finally:
            (folder / "go").touch()
            crew.end()
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
