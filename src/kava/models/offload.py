"""Frozen models whose weights are on an accelerator during their passes alone.

The weights stay where they are, in the CPU's memory, and a pass works on copies that are freed
behind it. Nothing is copied back, since what is frozen does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

Bring = Callable[[Tensor], Tensor]


class Resting:
    """Models at rest, and the way that their weights take for a pass.

    Example:
        >>> resting = Resting()
        >>> resting.place([teacher], torch.device("cuda"), rest=True)
        >>> with resting.awake(teacher):
        ...     _, trace = capture(teacher, input_ids.cuda())
    """

    def __init__(self) -> None:
        self._models: dict[nn.Module, Bring] = {}
        self._awake: set[nn.Module] = set()

    def add(self, model: nn.Module, bring: Bring) -> None:
        """Let a model rest from now on.

        Args:
            model: on the CPU; none of its parameters takes gradients.
            bring: copies a tensor to where the model is read.
        """
        self._models[model] = bring

    def place(self, models: Iterable[nn.Module], device: torch.device, *, rest: bool) -> None:
        """Move models to the device that reads them, or let them rest on the CPU.

        Args:
            models: one may stand there twice.
            device: where they are read.
            rest: whether they are there during their passes alone.
        """
        for model in dict.fromkeys(models):
            if not rest:
                model.to(device)
                continue
            if device.type == "cuda":  # a GPU reads pinned memory faster
                for part in (*model.parameters(), *model.buffers()):
                    part.data = part.data.pin_memory()
            self.add(model, lambda part: part.to(device))

    @contextmanager
    def awake(self, *models: object) -> Iterator[None]:
        """Within the block the weights of models are where they are read.

        Of what is no model, such as a stored teacher, does not rest, or is awake already, nothing
        is moved.
        """
        with ExitStack() as stack:
            for model in (one for one in models if isinstance(one, nn.Module)):
                stack.enter_context(self._one_awake(model))
            yield

    @contextmanager
    def _one_awake(self, model: nn.Module) -> Iterator[None]:
        bring = self._models.get(model)
        if bring is None or model in self._awake:
            yield
            return
        # tied weights are one parameter, and are copied once
        homes = {part: part.data for part in (*model.parameters(), *model.buffers())}
        self._awake.add(model)
        try:
            for part, home in homes.items():
                part.data = bring(home)
            yield
        finally:
            for part, home in homes.items():
                part.data = home
            self._awake.discard(model)
