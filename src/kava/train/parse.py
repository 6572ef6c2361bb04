"""From a command line and a file to a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from kava.train.config import TrainConfig


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
    kinds = get_type_hints(TrainConfig)
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise ValueError(f"--config {path}: unknown key {unknown[0]!r}; see kava train --help")
    return {key: typed(f"--config {path}", key, value, kinds[key]) for key, value in values.items()}


_KIND_NAMES = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    list[str]: "a list of texts",
}


def typed(where: str, key: str, value: Any, hint: Any) -> Any:
    """A value of a file, held to the type of its field.

    Args:
        where: the file, or the part of it, for messages.
        key: the field's name.
        value: as YAML gives it.
        hint: the field's type.

    Raises:
        ValueError: a value of another type.
    """
    kind, *optional = get_args(hint) or (hint,)
    if value is None and optional:
        return None
    if kind is float and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 5e-5 as text
        except ValueError:
            pass
    elif kind == list[str]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    elif type(value) is kind:
        return value
    raise ValueError(f"{where}: {key}: {value!r} is not {_KIND_NAMES[kind]}")


def parse_config(argv: list[str], prog: str = "kava train") -> TrainConfig:
    """Flags, and a `--config` file below them, as a `TrainConfig`.

    Unknown flags and malformed values leave by `SystemExit(2)`, as argparse does, with one line
    in place of the usage, which would fill the screen.

    Args:
        argv: the arguments, without the program's name.
        prog: the command that they were given to, for messages.

    Raises:
        ValueError: a value that `TrainConfig` refuses, or a bad file.
    """
    import argparse

    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found, _ = finder.parse_known_args(argv)
    parser = Parser(
        TrainConfig,  # type: ignore[arg-type]
        prog=prog,
        description="Distil a teacher's key/value cache into a student.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="YAML file with the same keys as the flags; flags win")
    if found.config is not None:
        parser.set_defaults(**read_yaml(found.config))
    namespace = vars(parser.parse_args(argv))
    namespace.pop("config")
    return TrainConfig(**namespace)
