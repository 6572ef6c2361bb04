"""What a data set's name says: the options of a task that is drawn, and the shares of a mix.

    kava/shell-game?num_moves=6&form=verbose        mix:gsm8k=0.4,svamp:data/SVAMP.json=0.2,arc=0.4
    reasoning_gym:gsm_symbolic?size=2000&seed=1

A name is read, and its numbers are checked, before any record is: a command line with a wrong one
is refused at once.
"""

from kava.dataset_names.builtin import (
    BUILTIN_TASKS,
    FORMS,
    MAX_MOVES,
    SHELL_GAME_NAME,
    THEMES,
    WORD_BY_WORD,
    WORD_PROBLEMS_NAME,
    WORDS_PER_EQUATION,
    WORDS_PER_STEP,
    Form,
    WordProblemsOptions,
    builtin_options,
    builtin_task,
)
from kava.dataset_names.check import check_dataset_name
from kava.dataset_names.gym import GYM_PREFIX, GymOptions, gym_options, is_gym
from kava.dataset_names.mix import MIX_PREFIX, is_mix, mix_parts

__all__ = [
    "BUILTIN_TASKS",
    "FORMS",
    "GYM_PREFIX",
    "MAX_MOVES",
    "MIX_PREFIX",
    "SHELL_GAME_NAME",
    "THEMES",
    "WORDS_PER_EQUATION",
    "WORDS_PER_STEP",
    "WORD_BY_WORD",
    "WORD_PROBLEMS_NAME",
    "Form",
    "GymOptions",
    "WordProblemsOptions",
    "builtin_options",
    "builtin_task",
    "check_dataset_name",
    "gym_options",
    "is_gym",
    "is_mix",
    "mix_parts",
]
