"""Mix sources with given shares of the samples: `mix:gsm8k=0.4,svamp=0.2,arc=0.4`.

Samples are drawn without replacement and with exact shares: as many as the shares allow before a
source is exhausted, each source's number rounded by largest remainder.
(`datasets.interleave_datasets` draws a random source for every sample, so its shares hold only on
average, and it repeats or truncates sources.) The drawn samples depend on the seed and their
questions, not on their order. Ids are unique: a task's ids begin with the task's name, others get
their source's name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kava.data.records import Record
from kava.data.splits import question_order
from kava.data.tasks import TASKS, find_task
from kava.dataset_names import is_gym, mix_parts

ARC = "arc"


def load_mix(
    dataset_name: str, load: Callable[[str], list[Record]], *, seed: int = 0
) -> list[Record]:
    """Draw a mix.

    Args:
        dataset_name: a name in the form that `mix_parts` reads.
        load: returns all records of a source, by name.
        seed: seed of the draw.

    Returns:
        the drawn records of all sources, in an order given by the seed and the questions;
        `meta["source"]` is the source's name.

    Raises:
        ValueError: a malformed mix, a source that cannot be loaded or is too small for its share.
    """
    parts = mix_parts(dataset_name)
    for name in parts:  # before any source is read or downloaded
        _check_known(dataset_name, name)
    sources = {name: _load(name, load) for name in parts}
    total = min(math.floor(len(sources[name]) / share + 1e-9) for name, share in parts.items())
    sizes = shares_of(total, list(parts.values()))
    for name, size in zip(parts, sizes):
        if size == 0:
            raise ValueError(
                f"{dataset_name}: the share of {name} is less than one of the {total} samples "
                f"that the smallest source allows; raise its weight"
            )
    mixed: list[Record] = []
    for records, size in zip(sources.values(), sizes):
        mixed += draw(records, size, seed)
    twice = [name for name, count in Counter(record.id for record in mixed).items() if count > 1]
    if twice:
        raise ValueError(f"{dataset_name}: two samples have the id {twice[0]!r}; mix other sources")
    return _mingled(mixed, seed)


def draw(records: Sequence[Record], size: int, seed: int) -> list[Record]:
    """The first `size` records in the order of a hash of their questions."""
    return sorted(records, key=lambda record: question_order(record, seed, "mix"))[:size]


def _mingled(records: Sequence[Record], seed: int) -> list[Record]:
    return sorted(records, key=lambda record: question_order(record, seed, "mingle"))


def draw_shares(records: Sequence[Record], size: int, seed: int) -> list[Record]:
    """Draw a number of records from a mix, keeping the shares of its sources.

    Example:
        >>> from kava.data import load_records
        >>> mixed = load_records("mix:kava/shell-game?num_train=9=1")
        >>> len(draw_shares(mixed, 4, seed=0))
        4
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.meta["source"], []).append(record)
    sizes = shares_of(size, [len(group) / len(records) for group in groups.values()])
    drawn = [
        record for group, part in zip(groups.values(), sizes) for record in draw(group, part, seed)
    ]
    return _mingled(drawn, seed)


def shares_of(total: int, shares: Sequence[float]) -> list[int]:
    """Divide a total into whole parts by largest remainder (ties: the first).

    Args:
        total: the number to divide.
        shares: fractions that sum to 1.

    Example:
        >>> shares_of(10, [0.55, 0.25, 0.2])
        [6, 2, 2]
    """
    exact = [total * share for share in shares]
    sizes = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(shares)), key=lambda index: sizes[index] - exact[index])
    for index in order[: total - sum(sizes)]:
        sizes[index] += 1
    return sizes


def mix_sizes(records: Sequence[Record]) -> dict[str, int]:
    """Number of records per source; empty if the records are not a mix.

    Example:
        >>> mix_sizes([])
        {}
    """
    sizes: dict[str, int] = {}
    for record in records:
        if "source" in record.meta:
            sizes[record.meta["source"]] = sizes.get(record.meta["source"], 0) + 1
    return sizes


def _check_known(dataset_name: str, name: str) -> None:
    head = name.partition(":")[0]
    built_in = name.startswith("kava/") or name == "openai/gsm8k"
    known = head == ARC or find_task(name) is not None or built_in or is_gym(name)
    if not known and not Path(name).expanduser().exists():
        raise ValueError(
            f"{dataset_name}: {name!r} is no task, file or folder; choose from "
            f"{', '.join(TASKS)}, {ARC}, or give a path"
        )


def _load(name: str, load: Callable[[str], list[Record]]) -> list[Record]:
    head, colon, path = name.partition(":")
    if head == ARC:
        records = [r for part in ("arc_easy", "arc_challenge") for r in load(part + colon + path)]
    else:
        records = load(name)
    named = head == ARC or find_task(name) is not None
    return [
        replace(
            record,
            id=record.id if named else f"{name}-{record.id}",
            meta={**record.meta, "source": name},
        )
        for record in records
    ]
