"""Check the name of a data set before any record is read."""

from __future__ import annotations

from contextlib import suppress

from kava.dataset_names.builtin import builtin_options, builtin_task
from kava.dataset_names.gym import GymMissing, gym_options, is_gym
from kava.dataset_names.mix import is_mix, mix_parts


def check_dataset_name(dataset_name: str) -> None:
    """Hold a name's options and shares to their ranges; whether its data exist shows later.

    Raises:
        ValueError: the first that does not fit.

    Example:
        >>> check_dataset_name("mix:kava/shell-game?num_moves=3=0.5,gsm8k=0.5")
    """
    for name in mix_parts(dataset_name) if is_mix(dataset_name) else (dataset_name,):
        if builtin_task(name) is not None:
            builtin_options(name)
        elif is_gym(name):
            # where the package is missing, plans and logs can still be read; loading says so
            with suppress(GymMissing):
                gym_options(name)
