"""Numeric precision of a run: float32 weights, and casts inside the passes.

All trained weights (the student, an aligner, CODI's projection) are float32, whatever the dtype of
a checkpoint: an update of 1e-4 of a weight is lost in the 8 bits of bfloat16 and the 11 of float16.
`--bf16` and `--fp16` cast inside the passes (autocast) and do not change these weights. `--dtype`
is the dtype of frozen weights, which are never updated: the teacher's, and with `--dtype bfloat16`
those beside LoRA adapters. In float16 the gradients that pass through such a base would vanish or
overflow, so that it stays in float32 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

MIN_LOSS_SCALE = 1.0
"""If float16 still overflows at this loss scale, lowering the scale further does not help."""


def check_device_precision(config: TrainConfig, device: torch.device) -> None:
    """Refuse an autocast that the device does not support.

    Raises:
        ValueError: float16 without a GPU, or bfloat16 on a GPU without support for it.
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
    """The autocast dtype of the passes; None if they use the weights' float32.

    Example:
        >>> autocast_dtype(TrainConfig(bf16=True))
        torch.bfloat16
    """
    if config.fp16:
        return torch.float16
    return torch.bfloat16 if config.bf16 else None
