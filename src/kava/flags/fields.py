"""Fields of a dataclass that are flags: default, help, and what a value may be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_KEY = "flag"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """What is known of a field beside its name, type and default.

    Args:
        help: what it is, for `--help`.
        choices: the words that it may be.
        least: the smallest number that it may be.
        above: a number that it must be above.
        most: the largest number that it may be.
        below: a number that it must be below.
        check: refuses other bad values by a `ValueError` that names the flag.
        hint: what else to say where a word is none of the choices.
        empty: whether a text may be empty.
        repeat: whether a list's flag takes one value each time that it is given.
        positional: whether it may be given by its place, too.
        metavar: what stands for its value in `--help`, and for its name where it is positional.
        group: the heading that it begins in `--help`; it holds for the fields that follow.
        words: words that stand for numbers, in addition to the numbers that it may be.
        unset: what `--help` calls a default of None.
    """

    help: str
    choices: Collection[str] | None = None
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    check: Callable[[Any], None] | None = None
    hint: str | None = None
    empty: bool = False
    repeat: bool = False
    positional: bool = False
    metavar: str | None = None
    group: str | None = None
    words: Mapping[str, int] = field(default_factory=dict)
    unset: str = "not set"

    def allows(self, number: float) -> bool:
        """Whether a number lies within the limits; NaN lies within none."""
        return number in self.words.values() or (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def range(self) -> str:
        """The limits in words; empty where there are none.

        Example:
            >>> Flag(help="", least=1, most=4096).range(), Flag(help="", above=0).range()
            ('from 1 to 4,096', 'above 0')
        """
        named = "".join(f", or {word}" for word in self.words)
        return self._limits() + named

    def _limits(self) -> str:
        low = (
            f"above {_number(self.above)}"
            if self.above is not None
            else f"{_number(self.least)}"
            if self.least is not None
            else ""
        )
        high = (
            f"below {_number(self.below)}"
            if self.below is not None
            else f"{_number(self.most)}"
            if self.most is not None
            else ""
        )
        if low and high:
            if self.above is None and self.below is None:
                return f"from {low} to {high}"
            low = low if self.above is not None else f"at least {low}"
            return f"{low} and {high if self.below is not None else f'at most {high}'}"
        if low:
            return low if self.above is not None else f"at least {low}"
        if high:
            return high if self.below is not None else f"at most {high}"
        return ""


def _number(limit: float) -> str:
    return f"{limit:,}" if float(limit).is_integer() and abs(limit) < 1e15 else f"{limit:g}"


def flag(default: Any, help: str, **about: Any) -> Any:
    """A field with a default.

    Args:
        default: where nothing is given; None makes the field optional.
        help: what it is.
        **about: the other arguments of `Flag`.

    Example:
        >>> @dataclass(kw_only=True)
        ... class Settings:
        ...     lr: float = flag(5e-5, "peak learning rate", above=0)
    """
    metadata = {_KEY: Flag(help=help, **about)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def needed(help: str, **about: Any) -> Any:
    """A field without a default, which has to be given."""
    return field(metadata={_KEY: Flag(help=help, **about)})


def again(kind: type[Any], name: str, default: Any, **changes: Any) -> Any:
    """A field with the flag of another dataclass, and a default of its own.

    Args:
        kind: the dataclass that declares the flag.
        name: of the flag.
        default: where nothing is given; `MISSING` where it has to be given.
        **changes: arguments of `Flag` that are others here.

    Example:
        >>> @dataclass(kw_only=True)
        ... class Scored:
        ...     split: str | None = again(Source, "split", None, unset="the run's")
    """
    about = replace(flags_of(kind)[name].flag, **changes)
    return field(default=default, metadata={_KEY: about})


@dataclass(frozen=True)
class Setting:
    """A field with everything about it.

    Args:
        name: of the field, and of its flag.
        kind: `str`, `int`, `float` or `bool`; of a list, of its items.
        many: whether it is a list.
        default: its default; `MISSING` where it has to be given.
        flag: what else is known.
        group: the heading that it stands under in `--help`.
    """

    name: str
    kind: type
    many: bool
    default: Any
    flag: Flag
    group: str

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING

    @property
    def spelled(self) -> str:
        """As messages name it: `--lr`, or `FILE` where it is given by its place."""
        if self.flag.positional and self.flag.metavar is not None:
            return self.flag.metavar
        return f"--{self.name}"


def flags_of(kind: type[Any]) -> dict[str, Setting]:
    """The fields of a dataclass that are flags, by name, in their order.

    Raises:
        TypeError: a field of a type that no flag has.

    Example:
        >>> flags_of(TrainConfig)["lr"].kind
        <class 'float'>
    """
    if kind not in _READ:
        _READ[kind] = _read(kind)
    return _READ[kind]


_READ: dict[type[Any], dict[str, Setting]] = {}
"""What was read already: a configuration is checked each time that one is made."""


def _read(kind: type[Any]) -> dict[str, Setting]:
    hints = get_type_hints(kind)
    settings: dict[str, Setting] = {}
    group = ""
    for one in fields(kind):
        about = one.metadata.get(_KEY)
        if about is None:
            continue
        group = about.group if about.group is not None else group
        base, many = _kind_of(one.name, hints[one.name])
        settings[one.name] = Setting(one.name, base, many, _default_of(one), about, group)
    return settings


def _kind_of(name: str, hint: Any) -> tuple[type, bool]:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (base,) = (part for part in parts if part is not NoneType)
    many = get_origin(base) in (list, tuple)
    if many:
        base = get_args(base)[0]
    if base not in (str, int, float, bool):
        raise TypeError(f"the field {name} is {hint}: a flag is text, a number, a switch or a list")
    return base, many


def _default_of(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default
