"""Time and peak memory of a piece of work, for the benchmarks of this folder."""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch


def positive(text: str) -> int:
    """A whole number above 0, for flags.

    Raises:
        argparse.ArgumentTypeError: another text.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def resident_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}: peak memory is measured on Linux only")


def timed(action: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and peak resident bytes above the start.

    On one thread they are CPU seconds, which a busy machine stretches less.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    # Freed memory that the allocator still holds would hide what the action asks for.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    start_bytes = resident_bytes("VmRSS")
    start = clock()
    action()
    seconds = clock() - start
    return seconds, resident_bytes("VmHWM") - start_bytes
