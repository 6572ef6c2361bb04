"""What a reasoning token is: its place in a step of a built-in task, or its kind in other text.

Shapes: R reasoning tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kava.data.encoded import Encoded
from kava.data.oracle import oracle_positions
from kava.data.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEP_ROLES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("num_moves", "verbose"): ("state before", "move", ">", "state after", ";"),
    ("num_moves", "compact"): ("state after",),
    ("num_steps", "equations"): ("left operand", "operator", "right operand", "=", "result"),
    ("num_steps", "compact"): ("result",),
}
"""What a built-in task counts by and its form → the words of a step, in order."""

OPERATORS = frozenset("+-−*/×÷=<>%^")


def token_roles(
    record: Record, sample: Encoded, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """The role of every reasoning token.

    Args:
        record: the record that `sample` was made of.
        sample: in the tokens of `tokenizer`.
        tokenizer: to read the tokens by.

    Returns:
        [R]; of a built-in task the words of a step (`STEP_ROLES`), of other text one of number,
        operator, word and mark (punctuation, blanks and line breaks).

    Example:
        >>> token_roles(records[0], encoded[0], tokenizer)[:5]
        ('state before', 'move', '>', 'state after', ';')
    """
    ids = sample.input_ids[sample.prompt_length : sample.answer_start].tolist()
    for (counted, form), words in STEP_ROLES.items():
        if counted in record.meta and record.meta.get("form") == form:
            return tuple(words[place % len(words)] for place in range(len(ids)))
    return tuple(_kind(str(tokenizer.decode([token]))) for token in ids)


def _kind(text: str) -> str:
    if any(c.isdigit() for c in text):
        return "number"
    if any(c.isalpha() for c in text):
        return "word"
    return "operator" if any(c in OPERATORS for c in text) else "mark"


def oracle_ranks(record: Record, sample: Encoded) -> np.ndarray | None:
    """[R] bool: the result of each step, where the task tells; None where it does not."""
    if "result_words" not in record.meta:
        return None
    oracle = np.zeros(sample.answer_start - sample.prompt_length, dtype=bool)
    oracle[np.array(oracle_positions(record, sample)) - sample.prompt_length] = True
    return oracle
