"""Read a configuration from a command line, a file, and the environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kava.flags import Usage, flag, flags_of
from kava.flags.aliases import TRAINING
from kava.ranks import is_first
from kava.train.config import TrainConfig
from kava.train.defaults import recipe_beneath
from kava.train.variables import check_variables, take_variables

Config = TypeVar("Config", bound=TrainConfig)


@dataclass(kw_only=True)
class ConfigFile:
    """The flag of a file with further settings."""

    config: str | None = flag(
        None, "YAML file with the same keys as the flags; flags win", group="settings"
    )


COMMON = (
    *("model_name", "teacher_name", "dataset_name", "eval_size", "max_length", "overflow"),
    *("target_len", "kv_method", "alignment_mode", "kv_loss", "kv_weight", "codi_weight"),
    *("epochs", "max_steps", "batch_size", "lr", "seed", "device", "output_dir", "config"),
)
"""The flags that most runs need; `--help` shows only these."""

USAGE = Usage(
    prog="kava train",
    kind=TrainConfig,
    beside=ConfigFile,
    summary="Distil a teacher's key/value cache into a student.",
    example="kava train --model_name gpt2 --dataset_name gsm8k --target_len 24 --overflow skip",
    known=TRAINING,
    common=COMMON,
    more="Without a model and data, the built-in teacher learns to play the built-in game in "
    "latent tokens, and with kava/word-problems alone named its teacher learns those, by a recipe "
    "that the first line names.",
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys of a configuration file.

    Raises:
        ValueError: no such file, not a mapping, or a key that `TrainConfig` does not have.
    """
    from kava.inputs import Malformed
    from kava.inputs.yaml_text import read_yaml as read

    path = Path(path)
    if not path.exists():
        raise ValueError(f"--config {path}: no such file")
    try:
        values = read(path)
    except Malformed as error:
        raise ValueError(f"--config {error}") from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"--config {path} must hold keys and values, such as `lr: 5e-5`")
    return USAGE.read_mapping(values, f"--config {path}")


def parse_config(argv: Sequence[str], prog: str = "kava train") -> TrainConfig:
    """Parse flags into a `TrainConfig`; a `--config` file supplies what they leave out.

    Unknown flags and bad values raise `SystemExit(2)` with one line instead of the long usage text.

    Args:
        argv: the arguments, without the program's name.
        prog: the command's name, for messages.

    Raises:
        ValueError: a bad file, or a bad value in it.
    """
    usage = replace(USAGE, prog=prog)
    return config_of(usage, usage.read(argv))


def take_own(values: dict[str, Any], kind: type[ConfigFile]) -> dict[str, Any]:
    """Take a command's own flags out of parsed ones, and leave those of the run and `config`.

    Args:
        values: parsed flags, which are changed.
        kind: the command's own flags.
    """
    shared = flags_of(ConfigFile)
    names = [name for name in flags_of(kind) if name in values and name not in shared]
    return {name: values.pop(name) for name in names}


class Given(NamedTuple):
    """The settings of a command before its defaults.

    Attributes:
        values: by name.
        origins: where a value comes from, if not from the command line: a file or a variable.
        taken: a line for each value that the environment says.
        unread: a line for each variable that may have been meant for KaVa and is not read.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    taken: list[str]
    unread: list[str]


def gather(usage: Usage[Any], values: dict[str, Any]) -> Given:
    """The settings that flags, a file and variables of the environment say, in this order.

    Args:
        usage: of the command.
        values: parsed flags; `config` is taken out of them.

    Raises:
        ValueError: a bad file or variable, or a bad value in it.
    """
    file = values.pop("config", None)
    from_file = {} if file is None else read_yaml(file)
    origins = {name: f"--config {file}" for name in from_file if name not in values}
    given = {**from_file, **values}
    unread = check_variables(usage.settings)
    taken = take_variables(usage.settings, given)
    values = {**given, **taken.values}
    return Given(values, {**origins, **taken.origins}, taken.lines(), unread)


def config_of(usage: Usage[Config], values: dict[str, Any]) -> Config:
    """The configuration given by parsed flags, the file that they name, and the environment.

    If none names models or data, the recipe of the built-in game fills in; if they name only the
    built-in word problems, the recipe of those.

    Raises:
        ValueError: a bad file or variable, or a bad value in it.
    """
    given = gather(usage, values)
    recipe, reason = recipe_beneath(given.values)
    config = usage.build({**recipe, **given.values}, given.origins)
    config.left_out.update(dict.fromkeys(recipe, reason))
    if is_first():
        for line in [*(f"warning: {line}" for line in given.unread), *given.taken]:
            print(f"kava: {line}", file=sys.stderr, flush=True)
    return config
