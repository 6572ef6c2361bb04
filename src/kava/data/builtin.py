"""The built-in tasks: how each is drawn, and the template of its records and its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kava.data.records import Record, Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, Split, shell_game
from kava.data.word_problems import WORD_PROBLEMS_TEMPLATE, word_problems
from kava.dataset_names import (
    SHELL_GAME_NAME,
    WORD_PROBLEMS_NAME,
    builtin_options,
    builtin_task,
)


@dataclass(frozen=True)
class BuiltinTask:
    """A task that is made on the spot.

    Attributes:
        template: how its records become text.
        models: what the names of the models that were made for it begin with.
        draw: from its options and a split to the records.
    """

    template: Template
    models: str
    draw: Callable[[Any, Split], list[Record]]


def _shell_game(options: Any, split: Split) -> list[Record]:
    values = asdict(options)
    sizes = {"train": values.pop("num_train"), "test": values.pop("num_test")}
    return shell_game(sizes[split], split=split, **values)


_TASKS: Mapping[str, BuiltinTask] = {
    SHELL_GAME_NAME: BuiltinTask(SHELL_GAME_TEMPLATE, "kava/shell-", _shell_game),
    WORD_PROBLEMS_NAME: BuiltinTask(
        WORD_PROBLEMS_TEMPLATE,
        "kava/word-",
        lambda options, split: word_problems(options, split=split),
    ),
}


def load_builtin(dataset_name: str, split: str) -> list[Record]:
    """The records of a built-in task.

    Raises:
        ValueError: an option that it does not have or take, or another split than train and test.

    Example:
        >>> len(load_builtin("kava/shell-game?num_test=7", "test"))
        7
    """
    task, options = dataset_name.partition("?")[0], builtin_options(dataset_name)
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not in {task}; choose train or test")
    return _TASKS[task].draw(options, "train" if split == "train" else "test")


def template_of_data(dataset_name: str) -> Template:
    """The template of a built-in task's records; the usual one for other data."""
    task = builtin_task(dataset_name)
    return Template() if task is None else _TASKS[task].template


def template_of_model(model_name: str) -> Template:
    """The template that a built-in model was made for; the usual one for other models.

    Example:
        >>> template_of_model("kava/shell-teacher").cue, template_of_model("gpt2").cue
        ('Answer ', '#### ')
    """
    return next(
        (task.template for task in _TASKS.values() if model_name.startswith(task.models)),
        Template(),
    )
