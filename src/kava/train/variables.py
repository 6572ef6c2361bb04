"""Variables of the environment that training commands read: what belongs to a machine.

A variable is a default: a flag goes before it, and so does a `--config` file, which describes a
run. What a run learns from (its model, data, losses, rates) has no variable; folders and what the
hardware decides have one. Studies, curricula and the demo read none of them, since a plan has to
mean the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kava.flags.check import FlagError, check_value
from kava.flags.fields import Setting
from kava.flags.read import from_words
from kava.flags.words import listed, nearest
from kava.models.places import in_store

PREFIX = "KAVA_"
SETTINGS: Mapping[str, str] = {
    f"{PREFIX}{name.upper()}": name
    for name in (
        *("device", "bf16", "fp16", "dtype", "batch_size"),
        *("gradient_accumulation_steps", "effective_batch_size"),
    )
}
"""Variables that are defaults of a flag."""

TOGETHER = (
    frozenset({"bf16", "fp16"}),
    frozenset({"gradient_accumulation_steps", "effective_batch_size"}),
)
"""Flags that say the same thing in two ways: if one is given, a variable of another is not read."""

MODELS, DATA, OUTPUTS = "KAVA_MODEL_PATH", "KAVA_DATA_PATH", "KAVA_OUTPUT_PATH"
FOLDERS: Mapping[str, str] = {
    MODELS: "a folder of models: --model_name org/name is looked up in it before the hub",
    DATA: "a folder of data files: --dataset_name file.jsonl is looked up in it",
    OUTPUTS: "the folder in which a run without --output_dir makes its own",
}
CACHE = "KAVA_CACHE_PATH"
ELSEWHERE: Mapping[str, str] = {
    "KAVA_MODEL_STORE": "kava cluster: the shared folder of models, before KAVA_MODEL_PATH",
    "KAVA_TRACEBACK": "1: an error comes with where it came from",
    "KAVA_PLAIN": "1: aligners use the plain implementation",
    "KAVA_TASK": "the number of a task, in scripts for PBS",
    "KAVA_MODELS": "folder of scripts/pretrained_models.py and of the tests",
    "KAVA_SHARED": "folder of the tests' data",
    "KAVA_PROJECT_ROOT": "is not read: the package is imported from where it is installed",
}
"""Variables that are known and no default of a training flag."""

KNOWN = (*SETTINGS, *FOLDERS, CACHE, *ELSEWHERE)


class Taken(NamedTuple):
    """What the environment adds to the settings that are given.

    Attributes:
        values: settings by name.
        origins: the variable that each comes from.
    """

    values: dict[str, Any]
    origins: dict[str, str]

    def lines(self) -> list[str]:
        """The lines that say so at the start of a command."""
        return [
            f"environment: --{name} {shown(value)}, from {self.origins[name]}"
            for name, value in self.values.items()
        ]


def shown(value: Any) -> str:
    """A value as a flag is given it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def take_variables(
    settings: Mapping[str, Setting],
    given: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> Taken:
    """The settings that variables say and neither a flag nor a file does.

    Args:
        settings: the flags of the command.
        given: by flags and file.
        environ: the variables; None: of this process.

    Raises:
        ValueError: a value that its flag does not take, or a folder that is not there; one line
            that names the variable.

    Example:
        >>> from kava.train.flags import USAGE
        >>> take_variables(USAGE.settings, {}, {"KAVA_DEVICE": "cpu"}).lines()
        ['environment: --device cpu, from KAVA_DEVICE']
    """
    environ = os.environ if environ is None else environ
    taken = Taken({}, {})
    for variable, name in SETTINGS.items():
        text = environ.get(variable)
        group = next((group for group in TOGETHER if name in group), {name})
        if not text or name not in settings or not group.isdisjoint(given):
            continue
        try:
            value = from_words(settings[name], [text])
            check_value(settings[name], value)
        except FlagError as error:
            raise ValueError(f"{variable}: {error}") from error
        taken.values[name] = text if text in settings[name].flag.words else value
        taken.origins[name] = variable
    _take_folders(settings, given, environ, taken)
    return taken


def _take_folders(
    settings: Mapping[str, Setting],
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    taken: Taken,
) -> None:
    models, data = (_folder(environ, variable) for variable in (MODELS, DATA))
    for name in ("model_name", "teacher_name", "teachers"):
        if models is not None and given.get(name):
            value = given[name]
            many = [_in_store(one, models) for one in value] if isinstance(value, list) else None
            place: Any = _in_store(value, models) if many is None else many
            if place != value:
                taken.values[name], taken.origins[name] = place, MODELS
    for name in ("dataset_name", "eval_dataset_name"):
        value = given.get(name)
        if data is not None and value and not Path(value).exists() and (data / value).is_file():
            taken.values[name], taken.origins[name] = str(data / value), DATA
    outputs = environ.get(OUTPUTS)
    if outputs and "output_dir" in settings and "output_dir" not in given:
        usual = Path(settings["output_dir"].default).name
        taken.values["output_dir"] = str(Path(outputs).expanduser() / usual)
        taken.origins["output_dir"] = OUTPUTS


def _folder(environ: Mapping[str, str], variable: str) -> Path | None:
    named = environ.get(variable)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{variable}={named!r} is no folder: make it, or unset the variable")
    return folder


def _in_store(value: str, store: Path) -> str:
    """A model's name, as a folder of the store if it has one; a label before it stays."""
    label, equals, name = value.rpartition("=")
    place = in_store(store, name)
    return value if place is None else f"{label}{equals}{place}"


def check_variables(
    settings: Mapping[str, Setting], environ: Mapping[str, str] | None = None
) -> list[str]:
    """Refuse a variable that is meant for KaVa and not read; name one that may be another's.

    Args:
        settings: the flags of the command.
        environ: as `take_variables` takes it.

    Returns:
        A line for each variable that begins as those of KaVa and is like none of them. Kubernetes
        sets such ones (KAVA_SERVICE_HOST) for a service that is called kava.

    Raises:
        ValueError: one that is close to a known name, the name of a flag that has none, or
            KAVA_CACHE_PATH, which would change nothing.
    """
    environ = os.environ if environ is None else environ
    notes = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in KNOWN:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in settings and variable.upper() not in KNOWN:
            raise ValueError(
                f"{variable} is no variable that KaVa reads: pass --{name}, or write it into a "
                f"--config file (variables: {listed(SETTINGS)})"
            )
        close = nearest(name, [known.removeprefix(PREFIX).lower() for known in KNOWN])
        if close is not None:
            raise ValueError(
                f"{variable} is no variable that KaVa reads (did you mean {PREFIX}{close.upper()}?)"
                f": rename it or unset it"
            )
        notes.append(f"{variable} is no variable that KaVa reads: it changes nothing")
    if environ.get(CACHE) and not environ.get("HF_HOME"):
        raise ValueError(
            f"{CACHE} is left to the Hugging Face libraries, for models and data alike: export "
            f"HF_HOME={environ[CACHE]} in its place"
        )
    return notes
