"""The Python of README and of docs/architecture.md runs, each block in a process of its own."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
BLOCKS = [
    *(("README", block) for block in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)),
    *re.findall(r"^### … (.*)\n(?:.*\n)*?```python\n((?:.*\n)*?)```$", PAGE, re.M),
]


@pytest.mark.parametrize(("what", "block"), BLOCKS, ids=[what for what, _ in BLOCKS])
def test_an_example_runs(what: str, block: str) -> None:
    program = [sys.executable, "-c", block]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_place_where_something_is_added_has_an_example() -> None:
    headings = re.findall(r"^### … (.*)$", PAGE, re.M)
    assert headings == [what for what, _ in BLOCKS if what != "README"]
    assert len(headings) == 6


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_every_file_of_the_page_is_there(path: str) -> None:
    assert (ROOT / path).is_file() or (ROOT / "src/kava" / path).is_file()
