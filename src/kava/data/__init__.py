"""Records, their text and tokens, batches, sources and splits."""

from kava.data.collate import Batch, Collator
from kava.data.encode import encode, encode_prompt, encode_records
from kava.data.encoded import DoesNotFit, Encoded, EncodeReport
from kava.data.leakage import Leak, check_disjoint, leaks, question_key
from kava.data.oracle import oracle_positions, with_oracle_positions
from kava.data.records import Record, Rendered, Template
from kava.data.shell_game import (
    CHANCE,
    SHELL_GAME_TEMPLATE,
    shell_game,
    shell_game_splits,
    shell_game_tokenizer,
)
from kava.data.sources import default_template, load_records
from kava.data.splits import data_hash, normalize_question, split_records
from kava.data.word_problems import WORD_PROBLEMS_TEMPLATE, chance, word_problems
from kava.data.word_tokenizer import word_problems_tokenizer

__all__ = [
    "CHANCE",
    "SHELL_GAME_TEMPLATE",
    "WORD_PROBLEMS_TEMPLATE",
    "Batch",
    "Collator",
    "DoesNotFit",
    "EncodeReport",
    "Encoded",
    "Leak",
    "Record",
    "Rendered",
    "Template",
    "chance",
    "check_disjoint",
    "data_hash",
    "default_template",
    "encode",
    "encode_prompt",
    "encode_records",
    "leaks",
    "load_records",
    "normalize_question",
    "oracle_positions",
    "question_key",
    "shell_game",
    "shell_game_splits",
    "shell_game_tokenizer",
    "split_records",
    "with_oracle_positions",
    "word_problems",
    "word_problems_tokenizer",
]
