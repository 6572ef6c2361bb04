"""The tasks: one file each, and this registry of them."""

from __future__ import annotations

from kava.data.tasks.arc import ARC_CHALLENGE, ARC_EASY
from kava.data.tasks.asdiv import ASDIV
from kava.data.tasks.base import Task
from kava.data.tasks.gsm8k import GSM8K
from kava.data.tasks.gsm8k_aug import GSM8K_AUG
from kava.data.tasks.gsm_hard import GSM_HARD
from kava.data.tasks.math500 import MATH500
from kava.data.tasks.multiarith import MULTIARITH
from kava.data.tasks.strategyqa import STRATEGYQA
from kava.data.tasks.svamp import SVAMP

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(GSM8K, GSM8K_AUG, GSM_HARD, SVAMP, MULTIARITH, ASDIV, MATH500),
        *(STRATEGYQA, ARC_EASY, ARC_CHALLENGE),
    )
}
"""Name → task."""

_BY_ALIAS = {alias: task for task in TASKS.values() for alias in (task.name, *task.aliases)}


def find_task(dataset_name: str) -> tuple[Task, str | None] | None:
    """The task with a name, and its local path; None if the name is not a task's.

    Args:
        dataset_name: a task's name, or `name:path` for a local file or folder.

    Raises:
        ValueError: a task's name with a colon but no path.

    Example:
        >>> task, path = find_task("svamp:data/SVAMP.json")
        >>> task.name, path
        ('svamp', 'data/SVAMP.json')
    """
    name, colon, path = dataset_name.partition(":")
    if name not in _BY_ALIAS:
        return None
    if colon and not path:
        raise ValueError(f"{dataset_name!r} names no file behind its colon: {name}:PATH, or {name}")
    return _BY_ALIAS[name], path or None


__all__ = ["TASKS", "Task", "find_task"]
