"""Records, their text and tokens, batches, sources and splits."""

from kava.data.collate import Batch, Collator
from kava.data.encode import (
    DoesNotFit,
    Encoded,
    EncodeReport,
    encode,
    encode_prompt,
    encode_records,
)
from kava.data.records import Record, Rendered, Template
from kava.data.shell_game import (
    CHANCE,
    SHELL_GAME_TEMPLATE,
    normalize_answer,
    oracle_positions,
    shell_game,
    shell_game_splits,
    shell_game_tokenizer,
    with_oracle_positions,
)

__all__ = [
    "CHANCE",
    "SHELL_GAME_TEMPLATE",
    "Batch",
    "Collator",
    "DoesNotFit",
    "EncodeReport",
    "Encoded",
    "Record",
    "Rendered",
    "Template",
    "encode",
    "encode_prompt",
    "encode_records",
    "normalize_answer",
    "oracle_positions",
    "shell_game",
    "shell_game_splits",
    "shell_game_tokenizer",
    "with_oracle_positions",
]
