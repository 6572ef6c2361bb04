"""Random states that something may use without a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Put the random states back after the block: those of Python, NumPy, torch and `device`.

    An evaluation inside the block changes nothing of the training around it: how often a run
    evaluates, and whether an evaluation is made up for after a resume, leave dropout as it was.

    Example:
        >>> with random_states_kept(torch.device("cpu")):
        ...     first = torch.rand(2)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
