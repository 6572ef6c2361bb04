"""How many bytes of tensors are alive, op by op, in a run of tensors that have shapes alone.

Under torch's `FakeTensorMode` every op gives tensors of the right shape and dtype without computing
or holding anything. What autograd, a cache or a variable keeps stays alive there as in a real run,
and what is dropped goes; so the sum of the living tensors is the memory that the real run takes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class MemoryMark(NamedTuple):
    """The memory at the end of a stretch of a run, in bytes.

    Attributes:
        live: of all living tensors.
        most: the largest `live` within the stretch.
        named: of some of the living tensors, by name.
    """

    live: int
    most: int
    named: dict[str, int]


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that were made under it and are still alive.

    Args:
        fake: tensors have no values, and a number that is asked for is 0: a mask, say, is not all
            ones.

    Example:
        >>> with fake_tensors() as live:
        ...     layer = torch.nn.Linear(256, 256, bias=False)
        ...     live.mark()
        MemoryMark(live=262144, most=..., named={})
    """

    def __init__(self, *, fake: bool = False) -> None:
        super().__init__()
        self.fake = fake
        self.live = 0
        self.marks: list[MemoryMark] = []
        self._most = 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an op, and count what it made."""
        if self.fake and func is torch.ops.aten._local_scalar_dense.default:
            return 0
        output = func(*args, **(kwargs or {}))
        for part in tree_iter(output):
            if isinstance(part, Tensor):
                self._count(part.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return

        def gone(_: Any) -> None:
            self.live -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self._most = max(self._most, self.live)

    def mark(self, **named: int) -> MemoryMark:
        """End a stretch of the run here.

        Args:
            **named: bytes of some of the living tensors.
        """
        mark = MemoryMark(self.live, max(self._most, self.live), named)
        self.marks.append(mark)
        self._most = self.live
        return mark


@contextmanager
def fake_tensors() -> Iterator[LiveBytes]:
    """Within the block tensors have shapes alone, and their bytes are counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes(fake=True) as live:
        yield live


def bytes_of(parts: Any) -> int:
    """The bytes of all tensors in a nest of containers; a shared storage counts once."""
    storages = {}
    for part in tree_iter(parts):
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            storages[id(storage)] = (storage, storage.nbytes())
    return sum(size for _, size in storages.values())


def as_fake(module: nn.Module) -> nn.Module:
    """A module of the meta device with the fake tensors of the block around; tied ones stay tied.

    Libraries that move and swap parameters build on the meta device, and not under fake tensors.
    """
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    fresh = torch.empty(weight.shape, dtype=weight.dtype)
                    made[id(weight)] = nn.Parameter(fresh, requires_grad=weight.requires_grad)
                part._parameters[name] = made[id(weight)]  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                if id(buffer) not in made:
                    made[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
                part._buffers[name] = made[id(buffer)]
    return module
