"""Names of the built-in tasks, and their options: `kava/shell-game?num_moves=6&form=verbose`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from kava.dataset_names.options import read_options
from kava.flags.check import check_fields
from kava.flags.fields import Setting, flag, flags_of
from kava.flags.words import shown

SHELL_GAME_NAME = "kava/shell-game"
WORD_PROBLEMS_NAME = "kava/word-problems"

MAX_MOVES = 12
MAX_RECORDS = 10_000_000
MAX_STEPS = 8
MAX_DISTRACTORS = 4
NUMBERS = (10, 99)
"""The least and the most that the largest number of a word problem may be."""

Form = Literal["compact", "verbose", "both", "each"]
FORMS: tuple[Form, ...] = ("compact", "verbose", "both", "each")
WORDS_PER_STEP = {"compact": 1, "verbose": 5, "both": 1, "each": 1}
"""Of a shell game's reasoning, at the least."""

WordForm = Literal["compact", "equations", "both"]
OPERATIONS = ("any", "additive", "multiplicative", "parts")
WORD_FORMS: tuple[WordForm, ...] = ("compact", "equations", "both")
THEMES = ("stories", "goods", "money", "places", "time", "sums")
WORDS_PER_EQUATION = {"compact": 1, "equations": 5, "both": 1}
"""Of a word problem's reasoning, at the least."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the options of every built-in task have in common.

    Raises:
        ValueError: a value outside its range; the message names the option.
    """

    task: ClassVar[str]

    seed: int = flag(0, "of the draw", least=0, most=2**32 - 1)
    num_train: int = flag(20_000, "problems to train on", least=1, most=MAX_RECORDS)
    num_test: int = flag(1_000, "problems to test on", least=1, most=MAX_RECORDS)

    def __post_init__(self) -> None:
        check_fields(self, self._spelled)

    @classmethod
    def _spelled(cls, setting: Setting, value: object) -> str:
        return f"{cls.task}?{setting.name}={value if isinstance(value, int) else shown(value)}"

    def reasoning_words(self, keep_last_step: bool) -> tuple[int, int]:
        """The fewest and the most words of a short-form reasoning, without its last step or not."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ShellGameOptions(TaskOptions):
    """The options of `kava/shell-game`, behind the question mark.

    Example:
        >>> builtin_options("kava/shell-game?num_moves=6").num_moves
        6
    """

    task: ClassVar[str] = SHELL_GAME_NAME

    num_moves: int = flag(4, "moves of a game", least=1, most=MAX_MOVES)
    form: str = flag("compact", "how the reasoning is written", choices=FORMS)
    student_form: str | None = flag(
        None, "the form that the student's prompt asks for", choices=FORMS[:2]
    )
    fixed_start: bool = flag(True, "whether every game starts from abcd")

    def reasoning_words(self, keep_last_step: bool) -> tuple[int, int]:
        """As many for every game."""
        words = WORDS_PER_STEP[self.form] * (self.num_moves - (not keep_last_step))
        return words, words


@dataclass(frozen=True, kw_only=True)
class WordProblemsOptions(TaskOptions):
    """The options of `kava/word-problems`, behind the question mark.

    Example:
        >>> builtin_options("kava/word-problems?steps=3-5").step_range
        (3, 5)
    """

    task: ClassVar[str] = WORD_PROBLEMS_NAME

    steps: str = flag("2-5", "written steps of a problem, as 4 or 2-5")
    theme: str = flag("stories", "what problems are about; sums have no words", choices=THEMES)
    distractors: str = flag("0-2", "sentences with a number that is not needed, as 1 or 0-2")
    operations: str = flag(
        "any",
        "what a problem calculates with; parts: additive and multiplicative problems by turns, "
        "each with the name of its part as teacher_id",
        choices=OPERATIONS,
    )
    max_number: int = flag(30, "the largest number", least=NUMBERS[0], most=NUMBERS[1])
    form: str = flag("compact", "how the reasoning is written", choices=WORD_FORMS)
    student_form: str | None = flag(
        None, "the form that the student's prompt asks for", choices=WORD_FORMS[:2]
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.step_range, self.distractor_range

    @property
    def step_range(self) -> tuple[int, int]:
        """The fewest and the most written steps."""
        return _range_of("steps", self.steps, 1, MAX_STEPS)

    @property
    def distractor_range(self) -> tuple[int, int]:
        """The fewest and the most sentences with a number that is not needed."""
        return _range_of("distractors", self.distractors, 0, MAX_DISTRACTORS)

    def reasoning_words(self, keep_last_step: bool) -> tuple[int, int]:
        """Those of the problems with the fewest and the most steps."""
        fewest, most = (steps - (not keep_last_step) for steps in self.step_range)
        return WORDS_PER_EQUATION[self.form] * fewest, WORDS_PER_EQUATION[self.form] * most


def _range_of(name: str, text: str, least: int, most: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text, re.ASCII)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not least <= low <= high <= most:
        raise ValueError(
            f"{WORD_PROBLEMS_NAME}?{name}={shown(text)} must be a number or a range such as 2-5, "
            f"from {least} to {most}"
        )
    return low, high


BUILTIN_TASKS: Mapping[str, type[TaskOptions]] = {
    kind.task: kind for kind in (ShellGameOptions, WordProblemsOptions)
}
"""The tasks that are made on the spot, with their options."""

WORD_BY_WORD: Mapping[str, tuple[str, ...]] = {
    SHELL_GAME_NAME: ("kava/shell-teacher", "kava/shell-llama"),
    WORD_PROBLEMS_NAME: (
        *("kava/word-teacher", "kava/word-llama"),
        *("kava/word-neox-teacher", "kava/word-neox", "kava/word-adder"),
    ),
}
"""Built-in task → the built-in models that read a word of its reasoning as one token."""


def builtin_task(dataset_name: str) -> str | None:
    """The built-in task that a name means, without its options; None where it means none.

    Example:
        >>> builtin_task("kava/shell-game?num_moves=6"), builtin_task("gsm8k")
        ('kava/shell-game', None)
    """
    task = dataset_name.partition("?")[0]
    return task if task in BUILTIN_TASKS else None


def builtin_options(dataset_name: str) -> TaskOptions:
    """The options in the name of a built-in task.

    Raises:
        ValueError: an unknown option, one that stands twice, or a value that it does not take.
    """
    task, _, options = dataset_name.partition("?")
    kind = BUILTIN_TASKS[task]
    return kind(**read_options(task, options, flags_of(kind)))
