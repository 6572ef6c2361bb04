"""A plain backtracking matcher for regular expressions that counts its steps.

`re` tells nothing of the work it does, and time is no measure on a shared machine. This matcher
walks the tree that `re` itself parses, tries alternatives in the same order, and counts every test
of a character or a place. It has none of the shortcuts of `re`, so that its counts are an upper
bound that grows as the real ones do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Run = Callable[["Matcher", int], Iterator[int]]
MOST_STEPS = 200_000


class TooManySteps(Exception):  # noqa: N818
    """A match that takes more steps than any text of a test should."""


class Matcher:
    """One pattern on one text."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self.text = text
        self.steps = 0
        self._run = _compiled(pattern)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooManySteps

    def search(self, start: int = 0) -> tuple[int, int] | None:
        """As `re.Pattern.search`."""
        for begin in range(start, len(self.text) + 1):
            for end in self._run(self, begin):
                return begin, end
        return None

    def find_all(self) -> list[tuple[int, int]]:
        """As `re.Pattern.finditer`; behind an empty match it goes on at the next character."""
        found, start = [], 0
        while (span := self.search(start)) is not None:
            found.append(span)
            start = span[1] + (span[0] == span[1])
        return found

    def match(self) -> int | None:
        """The end of what `re.Pattern.match` finds."""
        return next(self._run(self, 0), None)

    def full(self) -> bool:
        """As `re.Pattern.fullmatch`."""
        return any(end == len(self.text) for end in self._run(self, 0))


@cache
def _compiled(pattern: re.Pattern[str]) -> Run:
    return _sequence(list(parser.parse(pattern.pattern, pattern.flags)), pattern.flags)


def _sequence(nodes: Sequence[tuple[Any, Any]], flags: int) -> Run:
    parts = [_node(op, value, flags) for op, value in nodes]

    def run(matcher: Matcher, place: int, at: int = 0) -> Iterator[int]:
        if at == len(parts):
            yield place
            return
        for end in parts[at](matcher, place):
            yield from run(matcher, end, at + 1)

    return run


def _node(op: Any, value: Any, flags: int) -> Run:
    if (test := _character(op, value, flags)) is not None:
        return _one(test)
    if op is c.AT:
        return _at(value, flags)
    if op is c.BRANCH:
        return _branch([_sequence(list(one), flags) for one in value[1]])
    if op is c.SUBPATTERN:
        _, added, removed, body = value
        return _sequence(list(body), (flags | added) & ~removed)
    if op is c.ATOMIC_GROUP:
        return _first(_sequence(list(value), flags))
    if op in (c.ASSERT, c.ASSERT_NOT):
        return _look(value[0], value[1], op is c.ASSERT, flags)
    if op in _REPEATS:
        low, high, body = value
        run = _repeat(low, high, list(body), op is c.MIN_REPEAT, flags)
        return _first(run) if op is c.POSSESSIVE_REPEAT else run
    raise NotImplementedError(op)


def _one(test: Callable[[str], bool]) -> Run:
    def run(matcher: Matcher, place: int) -> Iterator[int]:
        matcher.step()
        if place < len(matcher.text) and test(matcher.text[place]):
            yield place + 1

    return run


def _branch(options: list[Run]) -> Run:
    def run(matcher: Matcher, place: int) -> Iterator[int]:
        for option in options:
            yield from option(matcher, place)

    return run


def _first(body: Run) -> Run:
    def run(matcher: Matcher, place: int) -> Iterator[int]:
        for end in body(matcher, place):
            yield end
            return

    return run


def _look(direction: int, body: Any, wanted: bool, flags: int) -> Run:
    inner = _sequence(list(body), flags)
    width = body.getwidth()[0] if direction < 0 else 0

    def run(matcher: Matcher, place: int) -> Iterator[int]:
        matcher.step()
        inside = place >= width and any(True for _ in inner(matcher, place - width))
        if inside == wanted:
            yield place

    return run


def _repeat(low: int, high: int, body: list[tuple[Any, Any]], lazy: bool, flags: int) -> Run:
    test = _character(*body[0], flags) if len(body) == 1 else None
    inner = _sequence(body, flags)

    def characters(matcher: Matcher, place: int) -> Iterator[int]:
        assert test is not None
        end = place
        while end - place < high and end < len(matcher.text) and test(matcher.text[end]):
            matcher.step()
            end += 1
        ends = range(place + low, end + 1)
        for one in ends if lazy else reversed(ends):
            matcher.step()
            yield one

    def run(matcher: Matcher, place: int, count: int = 0) -> Iterator[int]:
        matcher.step()
        if lazy and count >= low:
            yield place
        if count < high:
            for end in inner(matcher, place):
                if end > place or count < low:
                    yield from run(matcher, end, count + 1)
        if not lazy and count >= low:
            yield place

    return run if test is None else characters


def _at(value: Any, flags: int) -> Run:
    word = _category(c.CATEGORY_WORD, flags)

    def holds(text: str, place: int) -> bool:
        if value is c.AT_BEGINNING_STRING:
            return place == 0
        if value is c.AT_BEGINNING:
            return place == 0 or bool(flags & re.M and text[place - 1] == "\n")
        if value is c.AT_END_STRING:
            return place == len(text)
        if value is c.AT_END:
            last = place == len(text) or text[place:] == "\n"
            return last or bool(flags & re.M and text[place] == "\n")
        before = place > 0 and word(text[place - 1])
        after = place < len(text) and word(text[place])
        return (before != after) == (value is c.AT_BOUNDARY)

    def run(matcher: Matcher, place: int) -> Iterator[int]:
        matcher.step()
        if holds(matcher.text, place):
            yield place

    return run


def _character(op: Any, value: Any, flags: int) -> Callable[[str], bool] | None:
    """The test of a node that is one character; None for any other node."""
    if op is c.LITERAL:
        return _literal(chr(value), flags)
    if op is c.NOT_LITERAL:
        same = _literal(chr(value), flags)
        return lambda character: not same(character)
    if op is c.ANY:
        return lambda character: bool(flags & re.S) or character != "\n"
    if op is c.CATEGORY:
        return _category(value, flags)
    if op is not c.IN:
        return None
    negated = value[0][0] is c.NEGATE
    tests = [_member(kind, item, flags) for kind, item in value[negated:]]
    return lambda character: any(test(character) for test in tests) != negated


def _member(op: Any, value: Any, flags: int) -> Callable[[str], bool]:
    if op is c.RANGE:
        low, high = value

        def inside(character: str) -> bool:
            cases = {character, character.lower(), character.upper()}
            options = cases if flags & re.I else {character}
            return any(low <= ord(one) <= high for one in options if len(one) == 1)

        return inside
    test = _character(op, value, flags)
    assert test is not None
    return test


def _literal(wanted: str, flags: int) -> Callable[[str], bool]:
    if flags & re.I:
        return lambda character: character.lower() == wanted.lower()
    return lambda character: character == wanted


_CATEGORIES = {
    c.CATEGORY_DIGIT: r"\d",
    c.CATEGORY_NOT_DIGIT: r"\D",
    c.CATEGORY_SPACE: r"\s",
    c.CATEGORY_NOT_SPACE: r"\S",
    c.CATEGORY_WORD: r"\w",
    c.CATEGORY_NOT_WORD: r"\W",
}


def _category(value: Any, flags: int) -> Callable[[str], bool]:
    own = re.compile(_CATEGORIES[value], flags & re.A)
    return lambda character: own.match(character) is not None


def samples(pattern: re.Pattern[str], most: int = 16) -> list[str]:
    """Short texts that lead a match to places in a pattern, "" first."""
    found = dict.fromkeys(_leads(parser.parse(pattern.pattern, pattern.flags), pattern.flags))
    return list(found)[:most]


def _leads(tree: Any, flags: int) -> Iterator[str]:
    """What is matched before each node, those inside of groups too."""
    texts = [""]
    yield ""
    for op, value in tree:
        if op is not c.ASSERT_NOT:
            for part in _parts(op, value):
                yield from (texts[0] + lead for lead in _leads(part, flags))
        texts = [a + b for a in texts for b in _samples(op, value, flags)][:4]
        yield from texts


def _samples(op: Any, value: Any, flags: int) -> list[str]:
    if op is c.BRANCH:
        return [text for one in value[1] for text in _samples_of(one, flags)]
    if op is c.SUBPATTERN:
        return _samples_of(value[3], flags)
    if op is c.ATOMIC_GROUP:
        return _samples_of(value, flags)
    if op is c.ASSERT:
        return _samples_of(value[1], flags)
    if op in _REPEATS:
        low, _, body = value
        texts = _samples_of(body, flags)
        return [text * max(low, 1) for text in texts] + ([""] if low == 0 else [])
    test = _character(op, value, flags)
    if test is None:
        return [""]
    return [one for one in (*_PROBES, *_literals([(op, value)])) if test(one)][:1]


def _samples_of(body: Any, flags: int) -> list[str]:
    texts = [""]
    for node in body:
        texts = [a + b for a in texts for b in _samples(*node, flags)][:4]
    return texts


_PROBES = "a0 \n<>.,-#A_=:;解是$%()\t\r\"'"


def alphabet(pattern: re.Pattern[str]) -> list[str]:
    """Characters that a pattern tells apart, and one that it does not name."""
    return _probes_of(parser.parse(pattern.pattern, pattern.flags))


def repeated(pattern: re.Pattern[str]) -> list[str]:
    """Texts that a part takes which may occur any number of times, and one that none names."""
    every, found = alphabet(pattern), {}
    for body in _bodies(parser.parse(pattern.pattern, pattern.flags)):
        run = _sequence(list(body), pattern.flags)
        for text in [*_samples_of(body, pattern.flags), *_probes_of(body), *every]:
            if len(text) in run(Matcher(pattern, text), 0):
                found[text] = None
    return [*found, "\0"]


def _probes_of(tree: Any) -> list[str]:
    return [*dict.fromkeys(_literals(tree)), "\0"]


def _literals(tree: Any) -> Iterator[str]:
    for op, value in tree:
        if op in (c.LITERAL, c.NOT_LITERAL):
            yield chr(value)
        elif op is c.RANGE:
            yield from map(chr, value)
        elif op in (c.IN, c.CATEGORY, c.ANY):
            test = _character(op, value, 0)
            assert test is not None
            found = [one for one in _PROBES if test(one)][:3]
            yield from found or _literals(value)
        else:
            for part in _parts(op, value):
                yield from _literals(part)


def _bodies(tree: Any) -> Iterator[Any]:
    """What an unbounded repetition repeats."""
    for op, value in tree:
        if op in _REPEATS and value[1] > 9:
            yield value[2]
        for part in _parts(op, value):
            yield from _bodies(part)


_REPEATS = (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT)


def _parts(op: Any, value: Any) -> list[Any]:
    """The trees inside of a node."""
    if op is c.BRANCH:
        return list(value[1])
    if op is c.SUBPATTERN:
        return [value[3]]
    if op in (c.ASSERT, c.ASSERT_NOT):
        return [value[1]]
    if op is c.ATOMIC_GROUP:
        return [value]
    return [value[2]] if op in _REPEATS else []
