"""Samples of like lengths, batch by batch, on a model's device.

Shapes: B batch, T columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.importance.stages import UNCOUNTED

# Tokens of a batch, and numbers in its logits: more is no faster on a CPU, and fills a GPU.
CPU_TOKENS, CPU_LOGITS = 2**13, 2**24
GPU_TOKENS, GPU_LOGITS = 2**16, 2**28


def batches_of(
    model: PreTrainedModel, samples: Sequence[Encoded], places: Sequence[int]
) -> Iterator[list[int]]:
    """Places of samples of like lengths, as many as fit."""
    on_cpu = model.device.type == "cpu"
    tokens, logits = (CPU_TOKENS, CPU_LOGITS) if on_cpu else (GPU_TOKENS, GPU_LOGITS)
    budget = min(tokens, logits // model.config.vocab_size)

    def lengths(place: int) -> tuple[int, int]:
        sample = samples[place]
        return sample.answer_start - sample.prompt_length, len(sample.input_ids)

    batch: list[int] = []
    widest = 0
    for place in sorted(places, key=lengths):
        widest = max(widest, len(samples[place].input_ids))
        if batch and widest * (len(batch) + 1) > budget:
            yield batch
            batch, widest = [], len(samples[place].input_ids)
        batch.append(place)
    if batch:
        yield batch


def make_batch(
    model: PreTrainedModel, samples: Sequence[Encoded], stages: Sequence[np.ndarray]
) -> tuple[Batch, Tensor]:
    """A batch on the model's device, and the stages of its columns."""
    # what fills the padding is masked everywhere: any token that the model knows will do
    batch = Collator(0)(samples)
    stages_BT = torch.full_like(batch["input_ids"], UNCOUNTED)
    widest = max(sample.prompt_length for sample in samples)
    for row_T, sample, stage in zip(stages_BT, samples, stages):
        start = widest - sample.prompt_length
        row_T[start : start + len(stage)] = torch.from_numpy(stage)
    device = model.device
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return moved, stages_BT.to(device)  # type: ignore[return-value]
