"""The positions that a perfect eviction keeps: of the built-in tasks, each step's result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kava.data.records import Record

if TYPE_CHECKING:
    from kava.data.encoded import Encoded


def oracle_positions(
    record: Record, encoded: Encoded, target_len: int | None = None
) -> tuple[int, ...]:
    """The token indices of the results of the reasoning's steps.

    They are what a perfect eviction keeps, as an upper bound for the others; pass them to the
    collator with `with_oracle_positions`. Where more positions are to be kept than there are
    results, later tokens that repeat a result fill them up, then the last others; where fewer, the
    first results are kept, since each later one follows from them.

    Args:
        record: a record of a built-in task.
        encoded: the same record, encoded with the task's own tokenizer, one token a word.
        target_len: how many positions to keep; None: the results, however many they are. Short
            reasoning gives all of its tokens.

    Returns:
        Indices into `encoded.input_ids`, ascending; steps that were dropped are left out.

    Raises:
        ValueError: a record of another task, or of another id.

    Example:
        >>> from kava.data import SHELL_GAME_TEMPLATE, encode, shell_game, shell_game_tokenizer
        >>> record = shell_game(1, form="verbose")[0]
        >>> encoded = encode(record, shell_game_tokenizer(), SHELL_GAME_TEMPLATE, 64)
        >>> oracle_positions(record, encoded), oracle_positions(record, encoded, 5)
        ((12, 17, 22), (12, 14, 17, 19, 22))
    """
    if "result_words" not in record.meta:
        raise ValueError(
            f"record {record.id!r} is of no built-in task: it has no result_words in meta"
        )
    if record.id != encoded.id:
        raise ValueError(f"record {record.id!r} and encoded sample {encoded.id!r} differ")
    columns = (encoded.prompt_length + word for word in record.meta["result_words"])
    results = [column for column in columns if column < encoded.answer_start]
    if target_len is None:
        return tuple(results)
    reasoning = range(encoded.prompt_length, encoded.answer_start)
    others = [column for column in reasoning if column not in results]
    ids = encoded.input_ids
    again = [
        column
        for column in others
        if any(ids[column] == ids[result] for result in results if result < column)
    ]
    fillers = again + [column for column in reversed(others) if column not in again]
    num_more = max(target_len - len(results), 0)
    return tuple(sorted(results[:target_len] + fillers[:num_more]))


def with_oracle_positions(
    records: list[Record], encoded: list[Encoded], target_len: int | None = None
) -> list[Encoded]:
    """Fill `positions` of samples of a built-in task with `oracle_positions`, matched by id."""
    by_id = {record.id: record for record in records}
    return [
        replace(item, positions=oracle_positions(by_id[item.id], item, target_len))
        for item in encoded
    ]
