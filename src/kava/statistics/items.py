"""Files with one line per item: which of them a model got right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kava.inputs import json_lines

# what lm-evaluation-harness calls "right or wrong" in its sample files
HARNESS_METRICS = ("exact_match", "acc", "acc_norm")


class Items(NamedTuple):
    """The items of a file, in its order.

    Attributes:
        ids: of the items, each once.
        correct: [N] bool.
        path: where they come from.
        golds: the right answers, where the file names them; empty where it does not.
        num_steps: the written steps of each item, where the file names them; else empty.
    """

    ids: tuple[str, ...]
    correct: np.ndarray
    path: str = ""
    golds: tuple[str, ...] = ()
    num_steps: tuple[int, ...] = ()

    @property
    def num_correct(self) -> int:
        """How many are right."""
        return int(self.correct.sum())

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return float(self.correct.mean())


def read_items(
    path: str | Path, *, metric: str | None = None, filter_name: str | None = None
) -> Items:
    """Read which items were right.

    Two kinds of jsonl files are read: those with `id` and `correct` (true or false), as `kava
    evaluate --output` writes, and the sample files of lm-evaluation-harness, with `doc_id` and a
    metric that is 0 or 1. Those may hold several metrics, and each item once per answer filter
    (such as strict-match and flexible-extract); then it must be said which is meant.

    Args:
        path: the file.
        metric: of a harness file, and of no other; left out, its only one of exact_match, acc,
            acc_norm.
        filter_name: likewise; left out, its only one.

    Raises:
        ValueError: a line that is not as described, an id twice, no line at all, several metrics
            or filters and none chosen; the message names file and line.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"id": "a", "correct": true}\\n{"id": "b", "correct": false}\\n')
        ...     file.flush()
        ...     items = read_items(file.name)
        >>> items.ids, items.num_correct
        (('a', 'b'), 1)
    """
    rows = list(json_lines(path))
    if not rows:
        raise ValueError(f"{path} is empty; it needs one line per item, with id and correct")
    first = rows[0][1]
    if "doc_id" in first and "correct" not in first:
        rows = _of_filter(path, rows, filter_name)
        key, value = "doc_id", metric or _only_metric(path, first)
    else:
        key, value = "id", "correct"
        for flag, given in (("--metric", metric), ("--filter", filter_name)):
            if given is not None:
                raise ValueError(
                    f"{path} says itself which items are right: {flag} {given} is for the files "
                    f"of lm-evaluation-harness; leave it out"
                )
    line_of: dict[str, int] = {}
    correct = []
    golds = []
    for line, row in rows:
        for field in (key, value):
            if field not in row:
                raise ValueError(
                    f"{path}, line {line} has no field {field!r}, only {', '.join(map(repr, row))}"
                )
        name = _id(path, line, key, row[key])
        if name in line_of:
            raise ValueError(
                f"{path}, line {line} has the {key} {name!r} of line {line_of[name]} again; an "
                f"item counts once"
            )
        line_of[name] = line
        correct.append(_right(path, line, value, row[value]))
        golds += [str(row["gold"])] if "gold" in row else []
    known = tuple(golds) if len(golds) == len(correct) else ()
    counts = tuple(row["num_steps"] for _, row in rows if isinstance(row.get("num_steps"), int))
    steps = counts if len(counts) == len(correct) else ()
    return Items(tuple(line_of), np.array(correct, dtype=bool), str(path), known, steps)


def pair(a: Items, b: Items) -> tuple[np.ndarray, np.ndarray]:
    """Which of the same items were right in both files, in the first one's order.

    Raises:
        ValueError: ids that are in one of them only, or items whose right answers differ; the
            message counts them and names one.

    Example:
        >>> a = Items(("x", "y"), np.array([True, False]))
        >>> b = Items(("y", "x"), np.array([True, False]))
        >>> pair(a, b)
        (array([ True, False]), array([False,  True]))
    """
    index_of = {name: index for index, name in enumerate(b.ids)}
    names = (a.path or "the first", b.path or "the second")
    alone_a = [name for name in a.ids if name not in index_of]
    in_a = set(a.ids)
    alone_b = [name for name in b.ids if name not in in_a]
    complaints = [
        f"{len(alone)} of {len(items.ids)} ids are only in {name}, such as {alone[0]!r}"
        for items, name, alone in ((a, names[0], alone_a), (b, names[1], alone_b))
        if alone
    ]
    if complaints:
        raise ValueError(
            f"{' and '.join(complaints)}; only the same items can be compared one by one"
        )
    order = [index_of[name] for name in a.ids]
    if a.golds and b.golds:
        other = [name for name, gold, index in zip(a.ids, a.golds, order) if gold != b.golds[index]]
        if other:
            raise ValueError(
                f"{len(other)} of {len(a.ids)} items have another gold answer in {names[1]} than "
                f"in {names[0]}, such as {other[0]!r}: they are not the same questions"
            )
    return a.correct, b.correct[order]


def _of_filter(
    path: str | Path, rows: list[tuple[int, dict[str, Any]]], wanted: str | None
) -> list[tuple[int, dict[str, Any]]]:
    names = list(dict.fromkeys(str(row.get("filter", "none")) for _, row in rows))
    if wanted is None and len(names) > 1:
        raise ValueError(
            f"{path} holds every item once per filter, {', '.join(names)}; choose one with "
            f"--filter {names[0]}"
        )
    if wanted is not None and wanted not in names:
        raise ValueError(f"{path} has no filter {wanted!r}, only {', '.join(names)}")
    name = wanted or names[0]
    return [(line, row) for line, row in rows if str(row.get("filter", "none")) == name]


def _only_metric(path: str | Path, row: dict[str, Any]) -> str:
    known = [name for name in HARNESS_METRICS if name in row]
    if len(known) == 1:
        return known[0]
    if known:
        raise ValueError(
            f"{path} holds the metrics {', '.join(known)}; choose one with --metric {known[0]}"
        )
    raise ValueError(
        f"{path} has none of the metrics {', '.join(HARNESS_METRICS)}; name the one that is 0 or 1 "
        f"with --metric"
    )


def _id(path: str | Path, line: int, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(
            f"{path}, line {line} has {key}={value!r}, but an id is a text or a whole number"
        )
    return str(value)


def _right(path: str | Path, line: int, key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if key != "correct" and isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    wanted = "true or false" if key == "correct" else "0 or 1"
    raise ValueError(f"{path}, line {line} has {key}={value!r}, but it must be {wanted}")
