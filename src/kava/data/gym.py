"""Records of reasoning_gym's tasks: `reasoning_gym:gsm_symbolic?size=2000&seed=1`.

Some tasks keep their written steps in a problem's metadata, which become the reasoning:
`answer_cot`, a solution that ends with `#### 72` (gsm_symbolic), or `states`, the states that a
string or its counts go through, one per line, of which the last is the answer (string_manipulation,
string_splitting, string_synthesis). All others have a question and an answer alone: students can be
scored on them, and no reasoning is made up.

A number, a yes or a no is judged as everywhere in KaVa. Other answers are compared as words and,
where several are right (`SCORED`), also by the task's own scorer: an answer with the full score is
right. The scorers of other tasks are not called, since several of them run an answer as Python.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kava.data.answers import Judge, is_number
from kava.data.closed_answers import polarity
from kava.data.fields import as_text
from kava.data.leakage import question_key
from kava.data.records import Record
from kava.data.words import same_words
from kava.dataset_names import GYM_PREFIX, GymOptions, gym_options
from kava.dataset_names.gym import TEST_SEED

HASH_SEEDED = frozenset(
    {"isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication"}
    | {"ransom_note", "word_ladder"}
)
"""Tasks of version 0.1.25 whose problems depend on PYTHONHASHSEED: they choose from sets."""

SCORED = frozenset(
    {"cryptarithm", "group_anagrams", "jugs", "knight_swap", "knights_knaves"}
    | {"palindrome_generation", "quantum_lock", "shortest_path", "sokoban", "tower_of_hanoi"}
    | {"word_ladder"}
)
"""Tasks with several right answers whose scorer reads an answer without running it."""

Item = Mapping[str, Any]
"""A problem as the package gives it: question, answer, metadata."""


@dataclass(frozen=True, eq=False)
class SameByScore:
    """Whether an answer is the task's own one, or has the full score of its scorer.

    Args:
        options: of the task that drew the problem.
        seed: of its first problem.
        item: the problem.
    """

    options: GymOptions
    seed: int
    item: Item

    def __call__(self, predicted: str, gold: str) -> bool:
        """Judge an answer; one that the scorer cannot read is wrong."""
        if same_words(predicted, gold) or self.options.task not in SCORED:
            return same_words(predicted, gold)
        try:
            with redirect_stdout(io.StringIO()):
                drawn = _dataset(self.options, self.options.size, self.seed)
                return bool(drawn.score_answer(predicted, deepcopy(dict(self.item))) >= 1)
        except Exception:  # whatever a scorer of another package raises for a text
            return False


def load_gym(dataset_name: str, split: str) -> list[Record]:
    """Draw the records of a task of reasoning_gym.

    The test split is drawn with another seed. Questions that training has too (`question_key`) and
    repeated ones are left out of it, so that it may be smaller than asked for.

    Args:
        dataset_name: the task, with options; see `kava.dataset_names.gym`.
        split: "train" or "test".

    Raises:
        ValueError: the package is not installed; an unknown task, option or split; a task that
            needs PYTHONHASHSEED to be set; a problem that cannot be drawn, or has no answer of
            its own; no question that training has not.

    Example:
        >>> load_gym("reasoning_gym:gsm_symbolic?size=20&seed=1", "train")[0].steps
    """
    options = gym_options(dataset_name)
    if options.task in HASH_SEEDED and not os.environ.get("PYTHONHASHSEED", "").isdigit():
        raise ValueError(
            f"{GYM_PREFIX}{options.task} draws other problems in every process: set "
            f"PYTHONHASHSEED=0 in the environment, here and wherever the data are read again"
        )
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not in {GYM_PREFIX}TASK; choose train or test")
    train = _items(options, options.size, options.seed)
    if split == "train":
        return [_record(options, split, index, item) for index, item in enumerate(train)]
    met = {question_key(_text(item, "question", dataset_name)) for item in train}
    records = []
    test = _items(options, options.test_size, options.seed + TEST_SEED)
    for index, item in enumerate(test):
        record = _record(options, split, index, item)
        key = question_key(record.question)
        if key not in met:
            met.add(key)
            records.append(record)
    if not records:
        raise ValueError(
            f"{dataset_name}: all {options.test_size} test problems occur in training; raise "
            f"test_size, or choose options with more problems"
        )
    return records


def _record(options: GymOptions, split: str, index: int, item: Item) -> Record:
    where = f"{GYM_PREFIX}{options.task}, {split} problem {index}"
    if item["answer"] is None:
        raise ValueError(
            f"{where} has no answer of its own, only a scorer: choose another task of reasoning_gym"
        )
    answer = _text(item, "answer", where)
    meta = {}
    if not is_number(answer) and polarity(answer) is None:
        seed = options.seed + (TEST_SEED if split == "test" else 0)
        meta["judge"] = Judge(find=str.strip, same=SameByScore(options, seed, item))
    return Record(
        id=f"{options.task}-{split}-{index}",
        question=_text(item, "question", where),
        reasoning=_steps_of(item.get("metadata") or {}),
        answer=answer,
        meta=meta,
        where=where,
    )


def _steps_of(metadata: Mapping[str, Any]) -> str:
    """The written steps that a problem's metadata keep; "" if there are none."""
    written, states = metadata.get("answer_cot"), metadata.get("states")
    if isinstance(written, str):
        before, marker, _ = written.rpartition("####")
        return (before if marker else written).strip()
    if isinstance(states, list):
        return "\n".join(
            state if isinstance(state, str) else " ".join(map(str, state)) for state in states
        )
    return ""


def _text(item: Item, name: str, where: str) -> str:
    return as_text(item[name], f"{where}: {name}")


@lru_cache(maxsize=4)
def _items(options: GymOptions, size: int, seed: int) -> tuple[Item, ...]:
    """Draw problems; remembered, since the test split needs those of training too."""
    dataset = _dataset(options, size, seed)
    items = []
    for index in range(size):
        try:
            with redirect_stdout(io.StringIO()):  # some tasks print while they draw
                items.append(dataset[index])
        except Exception as error:  # whatever another package raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{GYM_PREFIX}{options.task}: problem {index} of seed {seed} cannot be drawn: "
                f"{reason}"
            ) from error
    return tuple(items)


@lru_cache(maxsize=8)
def _dataset(options: GymOptions, size: int, seed: int) -> Any:
    from reasoning_gym.factory import create_dataset

    own = {name: list(v) if isinstance(v, tuple) else v for name, v in options.settings}
    with redirect_stdout(io.StringIO()):
        return create_dataset(options.task, **own, size=size, seed=seed)
