"""Save and restore random states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Restore the random states of Python, NumPy, torch and `device` after the block.

    An evaluation inside the block does not affect training: dropout is the same however often a run
    evaluates, and whether or not it repeats an evaluation after a resume.

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
