"""Flags of `kava train`: optimiser, precision and device."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag
from kava.models.devices import DEVICE_HELP, DTYPES, check_device_name

AUTO_BATCH = -1
"""What `--batch_size auto` is until the size is found."""


def _check_steps(steps: int) -> None:
    if steps == 0:
        raise ValueError("--max_steps 0 trains nothing; pass 1 or more, or -1 for --epochs")


@dataclass(kw_only=True)
class OptimisationSettings:
    """The optimiser, its precision and its device."""

    epochs: float = flag(3.0, "passes over the data", above=0, group="training")
    max_steps: int = flag(
        -1, "optimiser steps; above 0 it overrides epochs", least=-1, check=_check_steps
    )
    batch_size: int = flag(
        8,
        "samples per device and step; auto: the largest power of two whose step fits in 80 % of "
        "the free memory, found by steps on the longest samples before the run",
        least=1,
        most=names.MOST_BATCH,
        words={"auto": AUTO_BATCH},
    )
    gradient_accumulation_steps: int = flag(
        1, "batches per optimiser step", least=1, most=names.MOST_BATCH
    )
    effective_batch_size: int | None = flag(
        None,
        "samples per device and optimiser step: sets gradient_accumulation_steps to this number "
        "over batch_size",
        least=1,
        unset="batch_size times gradient_accumulation_steps",
    )
    lr: float = flag(5e-5, "peak learning rate of AdamW", above=0)
    lr_projector: float | None = flag(
        None,
        "peak learning rate of what is trained beside the student's language model: projection, "
        "thought vectors, maps that learn (--aligner_fit joint), a router; left out: lr",
        above=0,
    )
    lr_scheduler: str = flag(
        "cosine",
        "a scheduler of transformers",
        choices=names.SCHEDULERS,
    )
    warmup_steps: int = flag(0, "steps of linear warm-up", least=0)
    weight_decay: float = flag(0.01, "AdamW's weight decay", least=0)
    max_grad_norm: float = flag(1.0, "clip gradients to this norm", least=0)
    bf16: bool = flag(False, "compute in bfloat16 (autocast); what is trained stays float32")
    fp16: bool = flag(
        False, "compute in float16 with a scaled loss, on a GPU; what is trained stays float32"
    )
    gradient_checkpointing: bool = flag(
        False,
        "keep no activations of the student's layers, and compute them again in the backward "
        "pass: less memory, longer steps, the same losses",
    )
    dtype: str = flag(
        "float32",
        "dtype of frozen weights: the teacher's, and in bfloat16 also those of the student that "
        "LoRA adapters stand beside; what is trained is float32",
        choices=DTYPES,
    )
    seed: int = flag(
        0, "seed of initialisation, data order and dropout", least=0, most=names.MOST_SEED
    )
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)
