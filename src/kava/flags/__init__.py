"""Flags: one description of every setting, for the command line, for files and for Python.

A command's settings are the fields of a dataclass. What a value may be stands beside its default
(`flag`), is checked wherever a value comes in (`check_fields`), and is what the parser, `--help`
and the shell's completion read (`Usage`). Nothing here loads torch.
"""

from kava.flags.check import FlagError, check_fields, check_once
from kava.flags.fields import Flag, again, flag, flags_of, needed
from kava.flags.parts import Parts
from kava.flags.usage import Usage
from kava.flags.words import listed, near

__all__ = [
    "Flag",
    "FlagError",
    "Parts",
    "Usage",
    "again",
    "check_fields",
    "check_once",
    "flag",
    "flags_of",
    "listed",
    "near",
    "needed",
]
