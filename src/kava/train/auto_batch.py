"""`--batch_size auto`: the largest power of two whose step fits in a share of the free memory.

Steps without an update are made on the longest samples, of 1, 2, 4, … samples, as long as the next
one, whose memory is foretold from the last two, fits beside the optimiser's states. They change
nothing: gradients are dropped, random states and buffers are put back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kava.data.collate import Collator
from kava.errors import KavaError
from kava.format import file_size
from kava.machine.host import available_bytes
from kava.ranks import num_launched
from kava.train.config import TrainConfig
from kava.train.defaults import accumulate
from kava.train.longest import longest
from kava.train.precision import autocast_dtype
from kava.train.randomness import random_states_kept
from kava.train.recording import peak_memory_bytes, reset_peak_memory
from kava.train.states import state_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kava.data.encoded import Encoded
    from kava.train.objective import Distiller

SHARE = 0.8
"""Of the free memory, that a step may take."""
MOST = 1024
"""The largest batch that is tried."""


class Found(NamedTuple):
    """A batch size, and why it is no larger.

    Attributes:
        size: samples.
        reason: of the line that is printed.
    """

    size: int
    reason: str


def settle_batch_size(
    config: TrainConfig,
    distiller: Distiller,
    samples: Sequence[Encoded],
    collate: Collator,
    device: torch.device,
) -> str:
    """Set the batch size of a configuration, and the batches of an optimiser step.

    Args:
        config: with `batch_size` still to be found; changed in place.
        distiller: what is trained; it is moved to the device.
        samples: the training samples.
        collate: makes batches.
        device: where the run trains.

    Returns:
        The line that says what was chosen and why.

    Raises:
        KavaError: the memory holds not even one sample.
        ValueError: several processes, whose free memory may differ.
    """
    if num_launched() > 1:
        raise ValueError(
            "--batch_size auto looks at the free memory of one process, and several train: give "
            "a number"
        )
    distiller.to(device)
    distiller.move_teacher(device)
    states = state_bytes(config.optim, distiller)

    def peak_of(size: int) -> int:
        return _peak(config, distiller, collate(longest(samples, size)), device)

    most = min(MOST, len(samples))
    found = choose(peak_of, most, free_bytes(device), states, config.effective_batch_size)
    config.batch_size = found.size
    accumulate(config)
    steps = config.gradient_accumulation_steps
    times = f" × {steps} batches a step" if steps > 1 else ""
    return f"--batch_size auto: {found.size}{times}, since {found.reason}"


def choose(peak_of: Any, most: int, free: int, states: int, effective: int | None = None) -> Found:
    """The largest power of two whose step fits.

    Args:
        peak_of: bytes that a step of a number of samples takes above what is in use.
        most: the largest number of samples.
        free: bytes of free memory before any step.
        states: bytes that the optimiser will take beside the step.
        effective: a number that the size has to divide.

    Raises:
        KavaError: not even one sample fits.

    Example:
        >>> choose(lambda size: 100 * size, 64, 1000, 0).size
        8
    """
    room = int(SHARE * free) - states
    beside = f" beside the optimiser's {file_size(states)}" if states else ""
    limit = f"{SHARE:.0%} of the free {file_size(free)}{beside}"
    size, peaks = 1, [peak_of(1)]
    if peaks[0] > room:
        raise KavaError(
            f"--batch_size auto: a step of one sample takes {file_size(peaks[0])}, more than "
            f"{limit}: lower --max_length, or pass --gradient_checkpointing, --lora_r or --bf16"
        )
    while True:
        after = 2 * size
        if effective is not None and effective % after:
            return Found(size, f"{after} does not divide --effective_batch_size {effective}")
        if after > most:
            return Found(
                size, f"there are no {after} samples" if most < MOST else "no more is tried"
            )
        # linear in the number of samples, from the last two sizes
        growth = peaks[-1] - peaks[-2] if len(peaks) > 1 else peaks[-1] // 2
        foretold = peaks[-1] + 2 * growth if len(peaks) > 1 else peaks[-1] + growth
        if foretold > room:
            took = f"a step of {size} takes {file_size(peaks[-1])}"
            return Found(size, f"{took}, and {after} would pass {limit}")
        try:
            peak = peak_of(after)
        except torch.OutOfMemoryError:
            return Found(size, f"a step of {after} runs out of memory")
        if peak > room:
            return Found(size, f"a step of {after} takes {file_size(peak)}, more than {limit}")
        size = after
        peaks.append(peak)


def free_bytes(device: torch.device) -> int:
    """The memory of a device that is free; of the CPU, what this process may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    return available_bytes()


def _peak(config: TrainConfig, distiller: Distiller, batch: Any, device: torch.device) -> int:
    """Bytes that a step takes above what is in use before it."""
    half = autocast_dtype(config)
    batch = _moved(batch, device)
    with random_states_kept(device), _restored(distiller):
        _give_back()
        reset_peak_memory(device)
        before = peak_memory_bytes(device)
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = distiller(batch).loss
        loss.backward()
        above = peak_memory_bytes(device) - before
    if above <= 0:
        raise KavaError(
            f"--batch_size auto: this system does not tell how much memory a step takes on "
            f"{device}: give a number"
        )
    return above


def _give_back() -> None:
    """Have glibc return freed memory, which would hide what a step asks for."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def _restored(distiller: Distiller) -> Iterator[None]:
    """Put back buffers, gradients and the mode of a module behind the block."""
    buffers = {part: part.clone() for part in distiller.buffers()}
    training = distiller.training
    distiller.train()
    try:
        yield
    finally:
        distiller.zero_grad(set_to_none=True)
        for part, value in buffers.items():
            part.copy_(value)
        distiller.train(training)


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, dict):
        return {name: _moved(value, device) for name, value in part.items()}
    return part.to(device) if isinstance(part, torch.Tensor) else part
