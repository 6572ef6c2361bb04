"""What a data set's name says: the options of the built-in game, and the shares of a mix.

    kava/shell-game?num_moves=6&form=verbose        mix:gsm8k=0.4,svamp:data/SVAMP.json=0.2,arc=0.4

A name is read, and its numbers are checked, before any record is: a command line with a wrong one
is refused at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from kava.flags.check import FlagError, check_fields
from kava.flags.fields import Setting, flag, flags_of
from kava.flags.read import from_words
from kava.flags.words import listed, near, shown

SHELL_GAME_NAME = "kava/shell-game"
SHELL_TOKENIZED = ("kava/shell-teacher", "kava/shell-llama")
"""Built-in models that read the game word by word."""

MIX_PREFIX = "mix:"
LEAST_SHARE = 1e-9
MAX_MOVES = 12
MAX_GAMES = 10_000_000

Form = Literal["compact", "verbose", "both"]
FORMS: tuple[Form, ...] = ("compact", "verbose", "both")
WORDS_PER_STEP = {"compact": 1, "verbose": 5, "both": 1}
"""Of a record's reasoning, at the least."""


@dataclass(frozen=True, kw_only=True)
class ShellGameOptions:
    """The options of `kava/shell-game`, behind the question mark.

    Raises:
        ValueError: a value outside its range; the message names the option.

    Example:
        >>> shell_game_options("kava/shell-game?num_moves=6").num_moves
        6
    """

    num_moves: int = flag(4, "moves of a game", least=1, most=MAX_MOVES)
    form: str = flag("compact", "how the reasoning is written", choices=FORMS)
    student_form: str | None = flag(
        None, "the form that the student's prompt asks for", choices=FORMS[:2]
    )
    fixed_start: bool = flag(True, "whether every game starts from abcd")
    seed: int = flag(0, "of the draw", least=0, most=2**32 - 1)
    num_train: int = flag(20_000, "games to train on", least=1, most=MAX_GAMES)
    num_test: int = flag(1_000, "games to test on", least=1, most=MAX_GAMES)

    def __post_init__(self) -> None:
        check_fields(self, _as_option)

    def num_reasoning_words(self, keep_last_step: bool) -> int:
        """The fewest words of a sample's reasoning, whose last step states the answer."""
        return WORDS_PER_STEP[self.form] * (self.num_moves - (not keep_last_step))


def _as_option(setting: Setting, value: object) -> str:
    return f"{SHELL_GAME_NAME}?{setting.name}={value if isinstance(value, int) else shown(value)}"


def is_shell_game(dataset_name: str) -> bool:
    """Whether a name means the built-in game.

    Example:
        >>> is_shell_game("kava/shell-game?num_moves=6"), is_shell_game("gsm8k")
        (True, False)
    """
    return dataset_name.partition("?")[0] == SHELL_GAME_NAME


def shell_game_options(dataset_name: str) -> ShellGameOptions:
    """The options in the name of the built-in game.

    Raises:
        ValueError: an unknown option, one that stands twice, or a value that it does not take.
    """
    settings = flags_of(ShellGameOptions)
    values = {}
    for name, word in parse_qsl(dataset_name.partition("?")[2], keep_blank_values=True):
        if name not in settings:
            raise ValueError(
                f"{SHELL_GAME_NAME} has no option {name!r}{near(name, settings)}; choose from "
                f"{listed(settings)}"
            )
        if name in values:
            raise ValueError(f"{dataset_name}: {name} stands there twice; give it one value")
        try:
            values[name] = from_words(settings[name], [word])
        except FlagError as error:
            what = str(error).partition(" is not ")[2]
            raise ValueError(f"{SHELL_GAME_NAME}?{name}={word} must be {what}") from None
    return ShellGameOptions(**values)


def is_mix(dataset_name: str) -> bool:
    """Whether a name means a mix.

    Example:
        >>> is_mix("mix:gsm8k=1"), is_mix("gsm8k")
        (True, False)
    """
    return dataset_name.startswith(MIX_PREFIX)


def mix_parts(dataset_name: str) -> dict[str, float]:
    """The sources of a mix and their shares, which sum to 1.

    Args:
        dataset_name: `mix:name=weight,name=weight,…`; weights above 0, in any unit. A name is
            what `load_records` takes, without a comma, or `arc`, which is both parts of ARC.

    Raises:
        ValueError: no sources, a source twice, a weight that is no finite number above 0.

    Example:
        >>> mix_parts("mix:gsm8k=2,svamp:data/SVAMP.json=2")
        {'gsm8k': 0.5, 'svamp:data/SVAMP.json': 0.5}
    """
    weights: dict[str, float] = {}
    for part in dataset_name.removeprefix(MIX_PREFIX).split(","):
        name, equals, text = part.strip().rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not equals or not name:
            raise ValueError(f"{dataset_name}: {part!r} must be a source and its weight, NAME=0.5")
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(
                f"{dataset_name}: the weight {text!r} of {name} must be a finite number above 0"
            )
        if is_mix(name):
            raise ValueError(f"{dataset_name}: a mix cannot hold another mix")
        if name in weights:
            raise ValueError(f"{dataset_name} names {name} twice; give it one weight")
        weights[name] = weight
    total = sum(weights.values())
    if math.isinf(total):
        raise ValueError(f"{dataset_name}: the weights sum to more than a number holds; lower them")
    shares = {name: weight / total for name, weight in weights.items()}
    for name, share in shares.items():
        if share < LEAST_SHARE:
            raise ValueError(
                f"{dataset_name}: the share of {name} is {share:g}, less than one sample in a "
                f"billion; raise its weight"
            )
    return shares


def check_dataset_name(dataset_name: str) -> None:
    """Hold a name's options and shares to their ranges; whether its data exist shows later.

    Raises:
        ValueError: the first that does not fit.

    Example:
        >>> check_dataset_name("mix:kava/shell-game?num_moves=3=0.5,gsm8k=0.5")
    """
    for name in mix_parts(dataset_name) if is_mix(dataset_name) else (dataset_name,):
        if is_shell_game(name):
            shell_game_options(name)
