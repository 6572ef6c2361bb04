"""Time and memory of a step: a clock that knows stages, and the peak of what is in use."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from kava.machine.host import resident_bytes


class StageClock:
    """Exclusive wall time of nested stages.

    Args:
        device: an accelerator's queue is waited for at every change of stage.

    Example:
        >>> clock = StageClock(torch.device("cpu"))
        >>> with clock.stage("losses"):
        ...     with clock.stage("align"):
        ...         pass
        >>> sorted(clock.seconds)
        ['align', 'losses']
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as `name`, and the stage around it no longer."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def watch(self, module: nn.Module, name: str) -> None:
        """Time every forward of `module` as `name`."""
        module.register_forward_pre_hook(lambda *_: self._enter(name))
        module.register_forward_hook(lambda *_: self._leave(), always_call=True)

    def _enter(self, name: str) -> None:
        self._tick()
        self._open.append(name)

    def _leave(self) -> None:
        self._tick()
        self._open.pop()

    def _tick(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class PeakMemory:
    """The most memory in use since now, above what is in use now.

    Args:
        device: CUDA's allocator tells exactly; on the CPU it is the resident memory of the
            process, from Linux's /proc.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start: int | None = torch.cuda.memory_allocated(device)
        else:
            self.start = self._reset_resident() if device.type == "cpu" else None

    def above_start(self) -> int | None:
        """Bytes, or None where the system does not tell."""
        if self.start is None:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.start
        return resident_bytes("VmHWM") - self.start

    def _reset_resident(self) -> int | None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or a container that forbids it
            return None
        return resident_bytes()
