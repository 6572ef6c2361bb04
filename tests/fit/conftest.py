"""Small models of several layers that read the built-in data, and batches of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from transformers import LlamaConfig, PreTrainedModel

from families import build
from kava.data import Collator, encode_records, load_records
from kava.data.collate import Batch
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game_tokenizer

Batches = Callable[[int], Iterator[Batch]]


@pytest.fixture
def llama() -> Callable[..., PreTrainedModel]:
    """Llama of so many layers, with random weights and the shell game's tokenizer."""

    def make(num_layers: int, seed: int = 0, **sizes: int) -> PreTrainedModel:
        config = LlamaConfig(
            vocab_size=len(shell_game_tokenizer()),
            num_hidden_layers=num_layers,
            hidden_size=sizes.get("hidden_size", 32),
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            pad_token_id=0,
        )
        return build(config, seed=seed)

    return make


@pytest.fixture
def batches() -> Batches:
    """Sixteen written shell games of different lengths, in batches of a given size."""
    tokenizer = shell_game_tokenizer()
    records = [
        record
        for moves in (3, 5, 6)
        for record in load_records(f"kava/shell-game?num_moves={moves}&num_train=6")
    ][:16]
    samples, _ = encode_records(records, tokenizer, SHELL_GAME_TEMPLATE, 128)
    assert len({len(sample.input_ids) for sample in samples}) > 1

    def make(size: int) -> Iterator[Batch]:
        for start in range(0, len(samples), size):
            yield Collator(tokenizer.pad_token_id)(samples[start : start + size])

    return make
