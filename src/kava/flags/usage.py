"""The command line of a command: from its arguments to its settings, or one line of what is wrong.

Not argparse, which prints all flags above an error, takes `-1e-3` for a flag, lets a switch swallow
the argument behind it, and drops the first of a list's flag that is given twice.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

from kava.flags.check import FlagError, check_value
from kava.flags.fields import Setting, flags_of
from kava.flags.known import Instead, Known, Same
from kava.flags.read import from_file, from_words, is_switch_word
from kava.flags.words import joined, near, nearest

USAGE_ERROR = 2
"""The exit code of a wrong command line."""

HELP = ("-h", "--help")
ALL = "all"
"""Behind `--help`: every flag."""
_SHORT = re.compile(r"-[A-Za-z]+")
_FLAG = re.compile(r"--(\w+)")

Config = TypeVar("Config")
Answered = tuple[str, list[str], Instead]
"""A flag of another program as it was written, the words behind it, and what is said of it."""


def refuse(prog: str, message: str) -> NoReturn:
    """Say what is wrong with the command line of a program, in one line, and leave."""
    with suppress(OSError):  # a full disk behind stderr changes nothing about the exit code
        print(f"{prog}: error: {message}; see {prog} --help", file=sys.stderr, flush=True)
    raise SystemExit(USAGE_ERROR)


@dataclass(frozen=True, kw_only=True)
class Usage(Generic[Config]):
    """What a command is called with.

    Args:
        prog: the command, such as `kava train`.
        kind: the dataclass of its settings.
        summary: what it does, for `--help`.
        example: a call that runs.
        beside: a second dataclass, whose flags stand on the same command line.
        more: what else `--help` says, behind the flags.
        known: flags of other programs, by name.
        common: the flags that `--help` shows; `--help all` shows the others too. None: all.

    Example:
        >>> usage = Usage(
        ...     prog="kava train", kind=TrainConfig, summary="Train.", example="kava train"
        ... )
        >>> usage.parse(["--lr", "1e-3"]).lr
        0.001
    """

    prog: str
    kind: type[Config]
    summary: str
    example: str
    beside: type | None = None
    more: str = ""
    known: Known = field(default_factory=dict)
    common: Collection[str] | None = None

    @property
    def settings(self) -> dict[str, Setting]:
        """All flags, by name."""
        others = {} if self.beside is None else flags_of(self.beside)
        return {**flags_of(self.kind), **others}

    def help(self, *, everything: bool = False) -> str:
        """What `--help` prints, and `--help all`, which shows every flag."""
        from kava.flags.help import help_text

        return help_text(
            self.settings,
            common=None if everything else self.common,
            prog=self.prog,
            summary=self.summary,
            example=self.example,
            more=self.more,
            has_aliases=bool(self.known),
        )

    def parse(self, argv: Sequence[str]) -> Config:
        """Arguments as settings; a wrong command line leaves by `SystemExit(2)`, with one line."""
        return self.build(self.read(argv))

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """The values that are given, by the name of their setting, each held to its flag.

        Leaves by `SystemExit`: 0 after `--help`, 2 after one line of what is wrong.
        """
        given, answered = self._words(argv)
        values: dict[str, Any] = {}
        for name, words in given.items():
            setting = self.settings[name]
            try:
                values[name] = from_words(setting, words)
                check_value(setting, values[name])
            except FlagError as error:
                self.fail(str(error))
        for written, words, instead in answered:
            if not instead.changes_nothing(words, values):
                self.fail(f"--{written} {instead.answer}")
        return values

    def build(self, values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Config:
        """Settings of values that were read; leaves by `SystemExit(2)` where they do not fit.

        Args:
            values: by name of the setting.
            origins: where a value comes from, if not from the command line.

        Raises:
            ValueError: a bad value from elsewhere.
        """
        missing = [
            setting.spelled
            for setting in flags_of(self.kind).values()
            if setting.required and setting.name not in values
        ]
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            self.fail(f"{joined(missing)} {verb} missing, as in: {self.example}")
        try:
            return self.kind(**values)
        except FlagError as error:
            if origins is not None and error.name in origins:
                raise ValueError(f"{origins[error.name]}: {error}") from error
            self.fail(str(error))
        except ValueError as error:
            self.fail(f"{error}{_whence(str(error), origins or {})}")

    def fail(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, in one line, and leave."""
        refuse(self.prog, message)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Inside the block a `ValueError` is a wrong command line.

        For what shows only when a file that the command line names has been read.
        """
        try:
            yield
        except ValueError as error:
            self.fail(str(error))

    def read_mapping(self, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The settings of a file: its keys are the names of the flags, known ones included.

        Args:
            mapping: keys and values as YAML or JSON gives them.
            where: what they belong to, for messages.

        Raises:
            ValueError: an unknown key, two that mean the same, or a value that its flag does not
                take; the message names the key.
        """
        settings = flags_of(self.kind)
        values: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        answered: dict[str, Instead] = {}
        for key, value in mapping.items():
            meant = None if key in settings else self.known.get(key)
            if isinstance(meant, Instead):
                answered[key] = meant
                continue
            name = key if meant is None else meant.flag
            if name not in settings:
                if isinstance(value, dict):
                    raise ValueError(
                        f"{where}: {key} holds keys of its own, and settings stand side by side, "
                        f"such as model_name: gpt2"
                    )
                raise ValueError(f"{where}: unknown key {key!r}{near(str(key), settings)}")
            if spelled.setdefault(name, key) != key:
                raise ValueError(f"{where}: {spelled[name]} and {key} mean the same: leave one out")
            if meant is not None and isinstance(value, str):
                if refusal := meant.refusal([value]):
                    raise ValueError(f"{where}: {key} {refusal}")
                words = meant.translated([value])
                value = words if settings[name].many and meant.commas else words[0]
            try:
                values[name] = from_file(settings[name], value)
            except FlagError as error:
                raise ValueError(f"{where}: {error}") from error
        for key, instead in answered.items():
            if not instead.changes_nothing([str(mapping[key])], values):
                raise ValueError(f"{where}: {key} {instead.answer}")
        return values

    def unknown(self, name: str) -> str:
        """The nearest of all names that are known, for a message; empty where none is near.

        Example:
            >>> usage.unknown("modelname")
            ' (did you mean --model_name?)'
        """
        close = nearest(name, [*self.settings, *self.known])
        if close is None:
            return ""
        meant = None if close in self.settings else self.known[close]
        here = f", here --{meant.flag}" if isinstance(meant, Same) else ""
        return f" (did you mean --{close}{here}?)"

    def _words(self, argv: Sequence[str]) -> tuple[dict[str, list[str]], list[Answered]]:
        """The words that belong to each setting, and the flags that get an answer."""
        tokens = deque(argv)
        words: dict[str, list[str]] = {}
        spelled: dict[str, str] = {}  # setting → as it was written
        answered: list[Answered] = []
        places: list[str] = []
        while tokens:
            token = tokens.popleft()
            if token in HELP:
                print(self.help(everything=next(iter(tokens), None) == ALL))
                raise SystemExit(0)
            if token == "--":
                places += tokens
                break
            if not token.startswith("--"):
                if _SHORT.fullmatch(token):
                    self.fail(f"unknown flag {token}")
                places.append(token)
                continue
            written, equals, value = token[2:].partition("=")
            written = written.replace("-", "_")
            meant = self._meant(written)
            if isinstance(meant, Instead):
                answered.append((written, [value] if equals else _until_flag(tokens), meant))
                continue
            name = written if meant is None else meant.flag
            setting = self.settings[name]
            if spelled.setdefault(name, written) != written:
                self.fail(f"--{spelled[name]} and --{written} mean the same: leave one out")
            taken = [value] if equals else self._take(setting, tokens, written)
            if meant is not None:
                more = [] if equals or setting.kind is bool or setting.many else _until_flag(tokens)
                if refusal := meant.refusal([*taken, *more]):
                    self.fail(f"--{written} {refusal}")
                taken = meant.translated(taken)
                places += more
            words[name] = [*words.get(name, []), *taken] if setting.many else taken
        self._place(places, words)
        return words, answered

    def _meant(self, written: str) -> Same | Instead | None:
        """What a name means that is no setting; None of a setting."""
        if written in self.settings:
            return None
        if written not in self.known:
            self.fail(f"unknown flag --{written}{self.unknown(written)}")
        return self.known[written]

    def _take(self, setting: Setting, tokens: deque[str], written: str) -> list[str]:
        """The words behind a flag."""
        if setting.kind is bool:
            return [tokens.popleft()] if tokens and is_switch_word(tokens[0]) else ["true"]
        if setting.many and not setting.flag.repeat:
            taken = _until_flag(tokens)
        else:
            taken = [tokens.popleft()] if tokens and not tokens[0].startswith("--") else []
        if not taken:
            self.fail(f"--{written} needs a value")
        return taken

    def _place(self, places: list[str], words: dict[str, list[str]]) -> None:
        """Give the words without a flag to the settings that are given by their place."""
        for setting in self.settings.values():
            if not setting.flag.positional or setting.name in words or not places:
                continue
            words[setting.name] = places[:] if setting.many else places[:1]
            del places[: len(words[setting.name])]
        if places:
            self.fail(f"{places[0]!r} stands behind no flag{self.unknown(places[0])}")


def _whence(message: str, origins: Mapping[str, str]) -> str:
    """Where the flags come from that a message names and the command line does not."""
    flags = set(_FLAG.findall(message))
    named = [f"--{name} is from {origin}" for name, origin in origins.items() if name in flags]
    return f" ({'; '.join(named)})" if named else ""


def _until_flag(tokens: deque[str]) -> list[str]:
    """The words up to the next flag."""
    taken: list[str] = []
    while tokens and not tokens[0].startswith("--"):
        taken.append(tokens.popleft())
    return taken
