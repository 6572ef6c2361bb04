"""A worker process ends when its parent does, however the parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from typing import Any

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def end_with_parent() -> None:
    """Have this process killed as soon as its parent is gone; called first in a worker.

    On Linux the kernel does it. Elsewhere, and where the kernel was asked too late, a thread waits
    for the end of a pipe that the parent alone keeps open.
    """
    parent = parent_process()
    assert parent is not None, "no worker process"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""What a terminal, or a scheduler, sends to all processes: the parent acts on it, and ends its
workers."""


@contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """A process that is started in the block hears none of a terminal's signals from the start."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_terminal_to_parent() -> None:
    """Ignore a terminal's signals in a worker, instead of having them blocked."""
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)


def _end_after(sentinel: Any) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
