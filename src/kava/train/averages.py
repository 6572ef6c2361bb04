"""Sums of the loss and its terms since the last log; a checkpoint stores them.

A checkpoint may be written between two logs. Without the sums since the last log, the first row
after a resume would average over other steps than the same row of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Averages:
    """Sums of the loss and its terms over the steps since the last log.

    Args:
        sums: the sum of each term so far, by name; each process holds its own share.
        num_steps: the number of optimiser steps in the sums.

    Example:
        >>> averages = Averages()
        >>> for value in (3.0, 1.0):
        ...     averages.add({"loss": torch.tensor(value)})
        ...     averages.num_steps += 1
        >>> averages.settle()
        {'loss': 2.0}
    """

    def __init__(self, sums: Mapping[str, float] | None = None, num_steps: int = 0):
        self._sums = {name: torch.tensor(total) for name, total in (sums or {}).items()}
        self.num_steps = num_steps

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of one micro-batch; they stay on their device."""
        for name, term in terms.items():
            term = term.detach().float()
            before = self._sums.get(name)
            self._sums[name] = term if before is None else before.to(term.device) + term

    def settle(self, reduce: Callable[[Tensor], Tensor] = lambda part: part) -> dict[str, float]:
        """Return the means over the steps since the last call, and reset the sums.

        Args:
            reduce: adds up a tensor over all processes.
        """
        steps = max(self.num_steps, 1)
        means = {name: float(reduce(total)) / steps for name, total in self._sums.items()}
        self._sums, self.num_steps = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """The constructor arguments of an equal object, as JSON values without loss."""
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "num_steps": self.num_steps}


def mean_loss(log_history: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean loss over all steps of a run, from its log; None if the log has no loss.

    Example:
        >>> mean_loss([{"step": 2, "loss": 4.0}, {"step": 3, "loss": 1.0}])
        3.0
    """
    total, last = 0.0, 0
    for row in log_history:
        if "loss" in row:
            total += row["loss"] * (row["step"] - last)
            last = row["step"]
    return total / last if last else None
