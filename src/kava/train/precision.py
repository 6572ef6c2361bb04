"""In which numbers a run computes: float32 weights, and where they are cast for a pass.

What is trained (the student, an aligner, CODI's projection) is held in float32 whatever a
checkpoint was saved in: an update of 1e-4 of a weight is lost below bfloat16's 8 bits and
float16's 11. `--bf16` and `--fp16` cast inside the passes (autocast) and leave these weights as
they are. `--dtype` is that of the frozen teacher, which no update changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

MIN_LOSS_SCALE = 1.0
"""At this scale of the loss float16 holds all that it can: what overflows then is no accident."""


def check_device_precision(config: TrainConfig, device: torch.device) -> None:
    """Refuse an autocast that a device cannot do.

    Raises:
        ValueError: float16 without a GPU, or bfloat16 on one that has none.
    """
    if config.fp16 and device.type == "cpu":
        raise ValueError(
            f"--fp16 scales the loss on a GPU, and --device {config.device} is the CPU here; pass "
            f"--bf16, which needs no scaling and no GPU, or neither"
        )
    if config.bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ValueError(
            f"--bf16: {torch.cuda.get_device_name(device)} has no bfloat16; pass --fp16, or neither"
        )


def autocast_dtype(config: TrainConfig) -> torch.dtype | None:
    """What the passes compute in, where that is not the weights' float32.

    Example:
        >>> autocast_dtype(TrainConfig(bf16=True))
        torch.bfloat16
    """
    if config.fp16:
        return torch.float16
    return torch.bfloat16 if config.bf16 else None
