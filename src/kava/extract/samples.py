"""Samples as one of the teachers of an extraction reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from kava.data.collate import Collator
from kava.data.encoded import Encoded


def as_alone(sample: Encoded, n: int) -> Encoded:
    """A sample as the n-th of several teachers reads it in training, as if it were the only one."""
    return replace(sample, sides=(), teacher=sample.sides[n].read) if sample.sides else sample


def reads(sample: Encoded, n: int) -> bool:
    """Whether a teacher reads a sample."""
    return not sample.sides or sample.sides[n].present


def collator_of(tokenizer: PreTrainedTokenizerBase, its: PreTrainedTokenizerBase) -> Collator:
    """Makes batches of samples as one teacher reads them."""
    assert isinstance(tokenizer.pad_token_id, int)
    return Collator(tokenizer.pad_token_id, its.pad_token_id)


def read_ids(sample: Encoded) -> Any:
    """The tokens of a sample that the teacher reads."""
    return sample.input_ids if sample.teacher is None else sample.teacher.encoded.input_ids
