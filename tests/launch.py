"""Several processes of a command: started as users do, on the CPU, or threads in their place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kava.ranks import ProcessLost, Ranks

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
    """The lines of stderr that are the command's own, but that it finishes a write."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("kava: ")]
    return [line for line in lines if "finishing what is under way" not in line]


class Threads:
    """Threads in place of processes, which meet as those do.

    Example:
        >>> Threads(monkeypatch).run(3, lambda ranks: ranks.gather(ranks.index))
        [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._meeting = threading.Barrier(1)
        self._places: dict[int, Any] = {}
        monkeypatch.setattr(Ranks, "gather", lambda ranks, own: self._gather(ranks, own))

    def _gather(self, ranks: Ranks, own: Any) -> list[Any]:
        if ranks.count == 1:
            return [own]
        self._places[ranks.index] = own
        try:
            self._meeting.wait()
            found = [self._places[index] for index in range(ranks.count)]
            self._meeting.wait()
        except threading.BrokenBarrierError:
            raise ProcessLost("another process has ended") from None
        return found

    def run(self, count: int, call: Callable[[Ranks], Any]) -> list[Any]:
        """What each of them returns; the first error of one, which ends the others."""
        self._meeting = threading.Barrier(count, timeout=60)
        found: dict[int, Any] = {}
        errors: list[Exception] = []

        def one(index: int) -> None:
            try:
                found[index] = call(Ranks(index, count))
            except Exception as error:
                errors.append(error)
                self._meeting.abort()

        threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [found[index] for index in range(count)]
