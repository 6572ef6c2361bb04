"""The accelerators that torch sees here, and why there is no CUDA device."""

from __future__ import annotations

import os
from typing import NamedTuple

from kava.format import file_size

HALF_CAPABILITY = (7, 0)
"""From this compute capability on, GPUs multiply matrices of float16 in units of their own."""


class Accelerator(NamedTuple):
    """A device beside the CPU.

    Attributes:
        device: as `--device` names it.
        model: as its driver names it.
        memory: bytes; None where it shares the host's.
        free: bytes of it that nothing holds now; None as `memory`.
        capability: compute capability; None of other makers' devices.
        bfloat16: whether it computes in bfloat16, and does not only imitate it.
    """

    device: str
    model: str
    memory: int | None
    free: int | None
    capability: tuple[int, int] | None
    bfloat16: bool

    @property
    def halves(self) -> bool:
        """Whether float16 is quicker than float32 on it."""
        return self.capability is not None and self.capability >= HALF_CAPABILITY

    def __str__(self) -> str:
        parts = [f"{self.device} {self.model}"]
        if self.memory is not None and self.free is not None:
            parts.append(f"{file_size(self.free)} of {file_size(self.memory)} free")
        if self.capability is not None:
            parts.append("compute capability {}.{}".format(*self.capability))
        return ", ".join(parts)


def accelerators() -> list[Accelerator]:
    """The accelerators that torch can use here, in the order of their numbers."""
    import torch

    if torch.cuda.is_available():
        return [_cuda(number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [Accelerator("mps", "Apple GPU", None, None, None, False)]
    if torch.accelerator.is_available():  # XPU and others, which no flag of KaVa names
        return [
            Accelerator(str(torch.accelerator.current_accelerator()), "", None, None, None, False)
        ]
    return []


def _cuda(number: int) -> Accelerator:
    import torch

    about = torch.cuda.get_device_properties(number)
    free, memory = torch.cuda.mem_get_info(number)
    if torch.version.hip is not None:  # AMD counts otherwise
        return Accelerator(f"cuda:{number}", about.name, memory, free, None, True)
    capability = (about.major, about.minor)
    bfloat16 = capability >= (8, 0)
    return Accelerator(f"cuda:{number}", about.name, memory, free, capability, bfloat16)


class Missing(NamedTuple):
    """Why something is not there, and what mends it."""

    reason: str
    mend: str


def why_no_cuda() -> Missing | None:
    """Why no CUDA device is visible; None where one is."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None and torch.version.hip is None:
        return Missing(
            f"torch {torch.__version__} was built for CPU",
            "install a CUDA build of torch (pytorch.org)",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return Missing(
            f"CUDA_VISIBLE_DEVICES={visible!r}",
            "unset it or name a device that nvidia-smi lists",
        )
    return Missing(f"torch {torch.__version__} finds no driver or no GPU", "look at nvidia-smi")
