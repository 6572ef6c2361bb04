"""Ragged samples of random tokens for the tests of importance."""

from __future__ import annotations

import numpy as np

from families import VOCAB_SIZE
from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded

# Prompt, reasoning and answer tokens; the last answer is one token, predicted by the reasoning.
LENGTHS = [(3, 7, 2), (5, 4, 4), (1, 5, 3), (2, 6, 1)]


def sample(index: int) -> Encoded:
    """Sample `index` of `LENGTHS`; the answer's value is its last token."""
    prompt, reasoning, answer = LENGTHS[index]
    rng = np.random.default_rng(index)
    return Encoded(
        id=f"s{index}",
        input_ids=rng.integers(1, VOCAB_SIZE, prompt + reasoning + answer).astype(np.int32),
        prompt_length=prompt,
        answer_start=prompt + reasoning,
        value_start=prompt + reasoning + answer - 1,
    )


def batch(*indices: int) -> Batch:
    """Those samples as one batch, padded on both sides; by default all."""
    return Collator(0)([sample(index) for index in indices or range(len(LENGTHS))])
