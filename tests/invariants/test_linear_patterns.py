"""Every regular expression of the package takes time linear in the text, whatever the text is."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kava
from invariants.backtracking import Matcher, TooManySteps, alphabet, repeated, samples

SOURCE = Path(kava.__file__).parent
USES = ("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
# what stands for a local name in a pattern that is made in a function
LOCALS = {"letters": "ABCD", "trigger": "#### ", "text": "\n"}
SIZE = 12
MOST_BEND = 3 * SIZE  # a pattern that takes n²/2 steps is at SIZE²


class Use(NamedTuple):
    """A pattern of the package, and the methods by which it is matched."""

    pattern: re.Pattern[str]
    methods: frozenset[str]

    def steps(self, text: str) -> int:
        """The steps of matching a text in every way that the package does."""
        matcher = Matcher(self.pattern, text)
        if "fullmatch" in self.methods:
            matcher.full()
        if "match" in self.methods:
            matcher.match()
        if self.methods - {"match", "fullmatch"}:
            matcher.find_all()
        return matcher.steps


def uses() -> dict[str, Use]:
    """Every pattern of the package by file and line, of modules and in functions."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "import re\n" not in text:
            continue
        tree = ast.parse(text)
        names = {
            id(node.value): ast.unparse(node.targets[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            method = node.func.attr
            if ast.unparse(node.func.value) != "re" or method not in (*USES, "compile"):
                continue
            methods = frozenset({method} & {*USES})
            if (name := names.get(id(node))) is not None:
                methods |= {one for one in USES if f"{name}.{one}(" in text}
            key = f"{path.relative_to(SOURCE)}:{node.lineno}"
            found[key] = Use(_evaluated(node, path), methods or frozenset(USES))
    return found


def _evaluated(call: ast.Call, path: Path) -> re.Pattern[str]:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    module = import_module(".".join(["kava", *(part for part in parts if part != "__init__")]))
    assert isinstance(call.func, ast.Attribute)
    flags = call.args[1:] if call.func.attr == "compile" else []
    flags += [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
    made = ast.Call(ast.parse("re.compile", mode="eval").body, [call.args[0], *flags], [])
    expression = ast.fix_missing_locations(ast.Expression(made))
    known: dict[str, Any] = {**LOCALS, **vars(module)}
    pattern = eval(compile(expression, str(path), "eval"), known)
    assert isinstance(pattern, re.Pattern)
    return pattern


PATTERNS = uses()


def attacks(pattern: re.Pattern[str], times: int) -> Iterator[str]:
    """Texts that repeat what a pattern looks for and then disappoint it."""
    for lead in samples(pattern):
        for unit in repeated(pattern)[:9]:
            yield lead + unit * (SIZE * times) + "\0"
            yield (lead + unit) * (SIZE // 2 * times) + "\0"


def worst(use: Use) -> tuple[int, str]:
    """How far the steps on the worst text are from a straight line, and that text."""
    bends = [(0, "")]
    for texts in zip(*(attacks(use.pattern, times) for times in (1, 2, 3))):
        try:
            one, two, three = map(use.steps, texts)
        except TooManySteps:
            return sys.maxsize, texts[0]
        bends.append((three - 2 * two + one, texts[0]))
    return max(bends)


@pytest.fixture(autouse=True)
def _deep() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def test_the_patterns_of_the_package_are_found() -> None:
    files = {name.partition(":")[0] for name in PATTERNS}
    assert {"segments.py", "data/calculator.py", "data/numbers/tokens.py"} <= files
    assert len(PATTERNS) > 25


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_steps_in_proportion_to_the_text(name: str) -> None:
    bend, text = worst(PATTERNS[name])
    assert bend < MOST_BEND, f"{PATTERNS[name]} on {text!r} and longer ones like it"


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:所以)?[,，]?\s*答案",  # blanks in front, tried at each of them
        r"\d+\s*%?[\s.]*",  # two repetitions that share out the same blanks
        r"(?:a+)+b",
        r"<<.*?>>",
        r"<<[^<>]*=[^<>]*>>",
        r"(<svg\b[^>]*>)",
    ],
)
def test_a_pattern_that_takes_more_is_found(pattern: str) -> None:
    assert worst(Use(re.compile(pattern, re.S), frozenset(USES)))[0] > 2 * MOST_BEND


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_counting_matcher_matches_as_re_does(name: str, data: st.DataObject) -> None:
    pattern = PATTERNS[name].pattern
    pieces = st.sampled_from([*alphabet(pattern), *samples(pattern)])
    text = "".join(data.draw(st.lists(pieces, max_size=8)))
    matcher, found = Matcher(pattern, text), pattern.search(text)
    assert matcher.search() == (None if found is None else found.span())
    assert matcher.full() == (pattern.fullmatch(text) is not None)
