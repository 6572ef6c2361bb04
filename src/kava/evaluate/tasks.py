"""Evaluate one student on several tasks: `kava evaluate --tasks …`.

Every task is processed in the same way for every student: its records, `answer_records`, a file of
items. A failed task is reported at once and at the end, and makes the command fail; the other tasks
are still answered, and finished results are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.data.files import stem_of
from kava.data.tasks import TASKS, find_task
from kava.dataset_names import builtin_task, is_gym, is_mix
from kava.errors import KavaError, cannot_write, describe
from kava.ranks import ProcessLost

FAMILIES = {"arc": ("arc_easy", "arc_challenge")}
"""Names for groups of tasks."""

TASK_ERRORS = (ValueError, OSError, KavaError, RuntimeError)
"""Errors that fail one task but not the others: bad data, a long prompt, out of memory."""


@dataclass(frozen=True)
class TaskResult:
    """The outcome of a task.

    Attributes:
        name: name of the task and its file.
        summary: its figures; None if it failed.
        error: the reason for the failure, on one line; None if there was none.
    """

    name: str
    summary: dict[str, Any] | None
    error: str | None


def resolve_tasks(names: Sequence[str], task_data: str | None = None) -> dict[str, str]:
    """Find the data set of each named task.

    Args:
        names: tasks, `task:path` for a local file, `arc` for both parts of ARC, or any other name
            for `load_records`.
        task_data: a folder with one subfolder of local files per task, with the task's name (arc
            for both parts of ARC), for the tasks that have no path.

    Returns:
        label → the name for `load_records`; the label names the task's file of items.

    Raises:
        ValueError: an unknown task, a task that is named twice, or one without a subfolder.

    Example:
        >>> resolve_tasks(["svamp:data/SVAMP.json", "arc"])
        {'svamp': 'svamp:data/SVAMP.json', 'arc_easy': 'arc_easy', 'arc_challenge': 'arc_challenge'}
    """
    found: dict[str, str] = {}
    for given in names:
        head, colon, path = given.partition(":")
        for name in (part + colon + path for part in FAMILIES.get(head, (head,))):
            label, source = _source(name, task_data)
            if label in found:
                raise ValueError(f"--tasks names {label} twice; name each task once")
            found[label] = source
    return found


def _source(name: str, task_data: str | None) -> tuple[str, str]:
    task = find_task(name)
    if task is None:
        drawn = name.partition("?")[0]
        if is_gym(name):
            return drawn.replace(":", "_"), name
        if is_mix(name) or builtin_task(name) is not None:
            return drawn.partition(":")[0].replace("/", "_"), name
        if Path(name).expanduser().exists():
            return stem_of(Path(name)), name
        raise ValueError(
            f"--tasks {name}: there is no such task, file or folder; choose from "
            f"{', '.join(TASKS)}, {', '.join(FAMILIES)}"
        )
    if task[1] is None and task_data is not None:
        folder = Path(task_data).expanduser() / task[0].folder
        if not folder.is_dir():
            raise ValueError(f"--task_data {task_data} holds no folder {task[0].folder}")
        return task[0].name, f"{task[0].name}:{folder}"
    return task[0].name, name


def run_tasks(
    sources: Mapping[str, str], score: Callable[[str, str], dict[str, Any]]
) -> list[TaskResult]:
    """Score the tasks one after the other; a failure is printed to stderr and the next follows.

    A full disk stops all tasks, since no further result could be saved, and so does the end of a
    process that answers its share.

    Args:
        sources: the result of `resolve_tasks`.
        score: maps a label and a data set's name to the figures; it also writes the items.
    """
    results = []
    for label, source in sources.items():
        try:
            results.append(TaskResult(label, score(label, source), None))
        except TASK_ERRORS as error:
            if cannot_write(error) or isinstance(error, ProcessLost):
                raise
            reason = describe(error)
            print(f"kava: warning: {label} failed: {reason}", file=sys.stderr)
            results.append(TaskResult(label, None, reason))
    return results


def check_results(results: Sequence[TaskResult]) -> None:
    """Raise an error if a task failed.

    Raises:
        ValueError: a task failed; the message names each failed task with its reason.
    """
    failed = [f"{result.name} ({result.error})" for result in results if result.error is not None]
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} tasks failed: {'; '.join(failed)}")


def tasks_table(results: Sequence[TaskResult]) -> str:
    """A table with one line per task: items, accuracy with its interval, costs."""
    head = ("task", "items", "right", "accuracy", "95% Wilson", "passes", "tokens", "s/answer")
    rows = [head]
    for result in results:
        figures = result.summary
        if figures is None:
            rows.append((result.name, "failed", *("–",) * 6))
            continue
        low, high = 100 * figures["accuracy_low"], 100 * figures["accuracy_high"]
        rows.append(
            (
                result.name,
                f"{figures['num_items']}",
                f"{figures['num_correct']}",
                f"{100 * figures['accuracy']:.1f} %",
                f"{low:.1f} – {high:.1f} %",
                f"{figures['forward_passes']:.1f}",
                f"{figures['num_tokens'] / figures['num_items']:.1f}",
                f"{figures['seconds_per_answer']:.4f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )
