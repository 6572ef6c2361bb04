"""The page on layers: its example runs, and its commands are ones that the shell takes."""

from __future__ import annotations

import doctest
import re
import shlex

from conftest import ROOT
from kava.commands.layer_map import parse
from kava.train.flags import parse_config

PATH = ROOT / "docs" / "layers.md"
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```$", PATH.read_text("utf-8"), flags=re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_example_runs() -> None:
    result = doctest.testfile(str(PATH), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_command_is_one_that_the_shell_takes() -> None:
    parsers = {"layer-map": parse, "train": parse_config}
    for program, name, *argv in COMMANDS:
        assert program == "kava"
        parsers[name](argv)
    assert {command[1] for command in COMMANDS} == {*parsers}
