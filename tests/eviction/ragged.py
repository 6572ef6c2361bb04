"""Random traces of unequal samples, padded on either side, for the compression tests.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
D head dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from kava.trace import KVTrace, Segment

# Prompt, reasoning and answer tokens of each sample. The third has fewer reasoning tokens than
# most tests keep, the last two share their lengths.
LENGTHS = [(3, 14, 2), (5, 9, 4), (1, 4, 1), (2, 12, 3), (2, 12, 3)]
L, H, G, D = 2, 3, 2, 8


def make_sample(index: int, dtype: torch.dtype = torch.float32) -> KVTrace:
    """Sample `index` of `LENGTHS` alone, without padding."""
    generator = torch.Generator().manual_seed(index)
    prompt, reasoning, answer = LENGTHS[index]
    T = prompt + reasoning + answer
    segments = [Segment.PROMPT] * prompt + [Segment.REASONING] * reasoning
    segments += [Segment.ANSWER] * answer
    # A common direction makes some cosines exceed the threshold of rkv_official.
    common = torch.randn(1, L, H, 1, D, generator=generator)
    keys = torch.randn(1, L, H, T, D, generator=generator) + 0.7 * common
    return KVTrace(
        keys=keys.to(dtype),
        values=torch.randn(1, L, H, T, D, generator=generator).to(dtype),
        queries=2 * torch.randn(1, L, H * G, T, D, generator=generator).to(dtype),
        mask=torch.ones(1, T, dtype=torch.bool),
        segment_ids=torch.tensor([segments]),
        positions=torch.arange(T)[None],
    )


def pad(trace: KVTrace, left: int, right: int) -> KVTrace:
    """The trace between pads that hold NaN, as a fully masked attention row may leave there."""

    def vectors(part: torch.Tensor) -> torch.Tensor:
        return functional.pad(part, (0, 0, left, right), value=float("nan"))

    def numbers(part: torch.Tensor, value: int) -> torch.Tensor:
        return functional.pad(part, (left, right), value=value)

    return replace(
        trace,
        keys=vectors(trace.keys),
        values=vectors(trace.values),
        queries=vectors(trace.queries),
        mask=numbers(trace.mask, 0),
        segment_ids=numbers(trace.segment_ids, Segment.PADDING),
        positions=numbers(trace.positions, 0),
    )


def make_batch(side: str = "both", dtype: torch.dtype = torch.float32) -> tuple[KVTrace, list[int]]:
    """All samples in one batch, and the column at which each begins.

    `side` says where the pads stand: "left", "right", or "both", where the reasoning begins at
    one column as in the training data.
    """
    samples = [make_sample(index, dtype) for index in range(len(LENGTHS))]
    longest = max(sample.length for sample in samples)
    most_prompt = max(prompt for prompt, _, _ in LENGTHS)
    offsets = [
        {"left": longest - sample.length, "right": 0, "both": most_prompt - prompt}[side]
        for sample, (prompt, _, _) in zip(samples, LENGTHS)
    ]
    total = max(offset + sample.length for offset, sample in zip(offsets, samples))
    padded = [
        pad(sample, offset, total - offset - sample.length)
        for sample, offset in zip(samples, offsets)
    ]
    names = ("keys", "values", "queries", "mask", "segment_ids", "positions")
    parts = {name: torch.cat([getattr(sample, name) for sample in padded]) for name in names}
    return KVTrace(**parts), offsets


def reasoning_columns(trace: KVTrace, sample: int) -> list[int]:
    """The columns that may be kept of one sample."""
    return (trace.segment_ids[sample] == Segment.REASONING).nonzero()[:, 0].tolist()
