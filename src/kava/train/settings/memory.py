"""Flags of `kava train`: what a run keeps in memory, and in how many bits."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag


@dataclass(kw_only=True)
class MemorySettings:
    """Quantised, resting and chunk-wise reading teachers, and the optimiser with its states."""

    teacher_quantization: list[str] | None = flag(
        None,
        "bits of the frozen teacher's linear layers, by bitsandbytes: none, 8bit (LLM.int8()) or "
        "4bit (NF4); of several teachers one for all, or one for each",
        choices=names.QUANTIZATIONS,
        metavar="BITS",
        unset="none",
        group="memory",
    )
    teacher_offload: bool = flag(
        False,
        "the frozen teacher's weights rest in the CPU's memory, and are on the accelerator during "
        "its passes alone",
    )
    capture_chunk: int | None = flag(
        None,
        "the frozen teacher reads a text this many tokens at a time, each over the cache of those "
        "before, so that no activations or attention of whole long texts are held; the texts that "
        "a map is fitted on are read so by the student, too",
        least=1,
        metavar="TOKENS",
        unset="the whole text",
    )
    optim: str = flag(
        "adamw_torch_fused",
        "optimiser of transformers; adamw_8bit holds its states in 8 bits (bitsandbytes), "
        "adafactor holds one moment, factored",
        choices=names.OPTIMISERS,
    )
