"""A command of several parts, such as `kava study run`, each with flags of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kava.flags.usage import HELP, Usage, refuse
from kava.flags.words import listed, near


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a command of several parts is called with.

    Args:
        prog: the command.
        summary: what it does, for `--help`.
        parts: the parts by name, each with what it is called with.
        example: a call that runs.
    """

    prog: str
    summary: str
    parts: Mapping[str, Usage[Any]]
    example: str

    def choose(self, argv: Sequence[str]) -> tuple[str, Sequence[str]]:
        """The name of the part that is asked for, and the arguments behind it.

        Leaves by `SystemExit`: 0 after `--help`, 2 after one line of what is wrong.
        """
        if not argv:
            self.fail(f"name a part of it ({listed(self.parts)}), as in: {self.example}")
        name, *rest = argv
        if name in HELP:
            print(self.help_text())
            raise SystemExit(0)
        if name not in self.parts:
            hint = near(name, self.parts)
            self.fail(f"there is no part {name!r}{hint}; choose {listed(self.parts)}")
        return name, rest

    def help_text(self) -> str:
        """The parts and what each does."""
        width = max(map(len, self.parts)) + 2
        return "\n".join(
            [
                f"usage: {self.prog} {'|'.join(self.parts)} …",
                "",
                self.summary,
                "",
                f"example: {self.example}",
                "",
                *(f"  {name:<{width}}{one.summary}" for name, one in self.parts.items()),
                "",
                f"`{self.prog} PART --help` lists a part's flags.",
            ]
        )

    def fail(self, message: str) -> NoReturn:
        """Say what is wrong, in one line, and leave."""
        refuse(self.prog, message)
