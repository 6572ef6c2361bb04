"""Stable splits, the hash of a data set, and the order of its questions.

A question is asked once, and drawn at random, by its text without differences in blanks, case and
Unicode form. Splits are stricter: questions that `kava.data.leakage` takes for one, such as two
that differ in punctuation, are on the same side of every split.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from kava.data.leakage import question_key
from kava.data.rationales import FIELD
from kava.data.records import Record


def normalize_question(question: str) -> str:
    """A question without differences in blanks, case and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def split_records(
    records: Sequence[Record], parts: Mapping[str, float] | Mapping[str, int], *, seed: int = 0
) -> dict[str, list[Record]]:
    """Divide records into splits by the hash of their questions.

    Splits by position move records from train to test when a data set is reordered or grows; by
    hash, a record's split depends only on its question. Records with the same question, whatever
    its punctuation and the form of its numbers (`question_key`), are always in the same split.

    Args:
        records: the records to divide.
        parts: name -> fraction, floats that sum to 1: a record's split is then independent of
            all other records, and the sizes come out about right. Or name -> size, integers that
            sum to at most the number of records: exact sizes, independent of the order, though
            adding records can move others; remaining records are in no split.
        seed: seed of the division.

    Returns:
        name -> records, in their order.

    Raises:
        ValueError: fractions that do not sum to 1, or impossible sizes.

    Example:
        >>> splits = split_records(records, {"train": 0.9, "test": 0.1})
    """
    if not parts or any(part < 0 for part in parts.values()):
        raise ValueError(f"parts={dict(parts)} must be one or more sizes or fractions, from 0 up")
    if all(isinstance(part, int) for part in parts.values()):
        return _by_size(records, {name: int(part) for name, part in parts.items()}, seed)
    total = sum(parts.values())
    if abs(total - 1) > 1e-9:
        raise ValueError(f"fractions {dict(parts)} sum to {total:g}; they must sum to 1")
    splits: dict[str, list[Record]] = {name: [] for name in parts}
    for record in records:
        place, edge = _hash(question_key(record.question), seed) / 2**64, 0.0
        for name, part in parts.items():
            edge += part
            # the last non-empty part includes values above its edge due to rounding
            if place < edge or edge > 1 - 1e-9:
                splits[name].append(record)
                break
    return splits


def data_hash(records: Sequence[Record]) -> str:
    """The sha256 of the records' content, in hexadecimal, independent of their order and ids.

    A checkpoint stores it, so that a run is not resumed on other data.

    Example:
        >>> data_hash(records) == data_hash(records[::-1])
        True
    """
    digests = sorted(
        hashlib.sha256(
            json.dumps(
                [r.question, r.reasoning, r.answer, r.student_question, r.step_separator]
                # its effect is already in the text; leaving it out keeps the hashes of earlier
                # versions
                + ([] if r.states_answer else [False])
                + ([sorted(r.meta[FIELD].items())] if FIELD in r.meta else []),
                ensure_ascii=True,
            ).encode()
        ).digest()
        for r in records
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def unique_questions(records: Sequence[Record]) -> list[Record]:
    """The first record of every question, in their order.

    A question that stands there with several chains of thought is asked once.

    Example:
        >>> unique_questions(records) == list(records)
        True
    """
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(normalize_question(record.question), record)
    return list(first.values())


def samples_per_question(records: Sequence[Record]) -> list[int]:
    """How many records each question has, in the order of the questions."""
    return list(Counter(normalize_question(record.question) for record in records).values())


def spread_questions(records: Sequence[Record]) -> list[Record]:
    """Records so ordered that those of one question are far apart: first the first of every
    question, then the second ones.

    The wrong sample of the controls is the one before; another chain of thought of the same
    question would be no wrong one. Without repeated questions the order stays.

    Example:
        >>> spread_questions(records) == list(records)
        True
    """
    rounds: dict[int, list[Record]] = {}
    met: Counter[str] = Counter()
    for record in records:
        question = normalize_question(record.question)
        rounds.setdefault(met[question], []).append(record)
        met[question] += 1
    return [record for round in rounds.values() for record in round]


def question_order(record: Record, seed: int, purpose: str = "") -> int:
    """Sort key for a random order of records that depends only on their questions.

    Args:
        record: the record; only its question is used.
        seed: seed of the order.
        purpose: name of the order; orders with different names are independent, so that the samples
            of one draw do not come first in the next.

    Example:
        >>> question_order(train[0], 0) == question_order(train[0], 0)
        True
    """
    return _hash(normalize_question(record.question), seed, purpose)


def _hash(question: str, seed: int, purpose: str = "") -> int:
    text = f"{purpose}{seed}\n{question}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _by_size(
    records: Sequence[Record], sizes: Mapping[str, int], seed: int
) -> dict[str, list[Record]]:
    total = sum(sizes.values())
    if total > len(records):
        raise ValueError(f"sizes {dict(sizes)} sum to {total}, more than {len(records)} records")
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(question_key(record.question), []).append(index)
    waiting = sorted(
        groups.values(), key=lambda group: min(question_order(records[i], seed) for i in group)
    )
    splits: dict[str, list[Record]] = {}
    for name, size in sizes.items():
        taken: list[int] = []
        left = []
        for group in waiting:
            if len(taken) + len(group) <= size:
                taken.extend(group)
            else:
                left.append(group)
        if len(taken) < size:
            raise ValueError(
                f"a split {name!r} of {size} cannot be filled exactly, for repeated questions "
                f"stay together; choose another size"
            )
        waiting = left
        splits[name] = [records[index] for index in sorted(taken)]
    return splits
