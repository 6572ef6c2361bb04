"""The sentences of the built-in word problems: a small grammar for each theme and kind of step.

A pattern stands for all of its phrasings: `(gets|finds)` is one of several words, `[more]` may be
left out. A phrasing belongs to the test split or to the train split by a hash of it, so that no
phrasing stands in both; every word of a test phrasing stands in train phrasings of the same theme
and kind. So a test asks for sentences that are new, and for no new words.

Each step is labelled by a month or a letter, in their order ("In March …", "box C …"): a small
model is to learn to calculate, and not to count sentences.

Slots: {o} the label of a step and {r} the label before it, {p} whom the problem is about or the
kind of thing that it compares, {q} somebody else, {g} the goods, {h} other goods, {n} a number,
{times} "twice" or "3 times", {part} "half" or "a third".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

Kind = Literal["start", "add", "sub", "mul", "div", "ask", "distractor"]
"""What a sentence does. A distractor names a number that is not needed."""

TEST_SHARE = 1 / 4
TIMES: Mapping[int, str] = {2: "twice", 3: "3 times", 4: "4 times", 5: "5 times"}
PARTS: Mapping[int, str] = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
MONTHS = (*("January", "February", "March", "April", "May", "June", "July", "August", "September"),)
LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H", "I")

PEOPLE = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jim", "Kate", "Leo")
GOODS = ("apples", "pears", "books", "pens", "cups", "cards", "shells", "coins", "nuts", "eggs")
PLACES = ("box", "bag", "shelf", "basket", "drawer", "tray")
EVENTS = ("lap", "lesson", "song", "film", "walk", "trip")


class Phrases(NamedTuple):
    """The phrasings of one kind of sentence, by split."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def phrases(*patterns: str, dated: bool = False) -> Phrases:
    """The phrasings of some patterns, divided between the splits.

    One of the test split with a word that no train phrasing has is left out.

    Args:
        *patterns: of sentences.
        dated: put the label before or behind each, "In {o} …" or "… in {o}".

    Example:
        >>> phrases("{p} (gets|finds) {n} [more] {g}.").train
        ('{p} gets {n} more {g}.', '{p} gets {n} {g}.', '{p} finds {n} {g}.')
    """
    found = [one for pattern in patterns for one in _expanded(pattern)]
    if dated:
        found = [
            one
            for text in found
            for one in (f"In {{o}} {text}", text.removesuffix(".") + " in {o}.")
        ]
    found = [one[0].upper() + one[1:] for one in found]
    train = tuple(one for one in found if not _is_test(one))
    known = {word for one in train for word in one.split()}
    test = tuple(one for one in found if _is_test(one) and known.issuperset(one.split()))
    return Phrases(train, test)


def _expanded(pattern: str) -> Iterator[str]:
    parts = re.split(r"(\([^()]*\)|\[[^][]*\])", pattern)
    choices = [
        part[1:-1].split("|")
        if part.startswith("(")
        else [*part[1:-1].split("|"), ""]
        if part.startswith("[")
        else [part]
        for part in parts
    ]
    for chosen in product(*choices):
        yield re.sub(r" +(?=[ .?])", "", "".join(chosen)).strip()


def _is_test(phrasing: str) -> bool:
    digest = hashlib.blake2b(phrasing.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < TEST_SHARE * 2**64


@dataclass(frozen=True)
class Theme:
    """A small world that problems are about.

    Attributes:
        name: of the theme.
        subjects: what {p} may be.
        labels: of the steps, the start's first; `{p}` stands for the subject.
        goods: what {g} may be.
        phrases: by kind of sentence.
    """

    name: str
    subjects: tuple[str, ...]
    labels: tuple[str, ...]
    goods: tuple[str, ...]
    phrases: Mapping[Kind, Phrases]


_DISTRACTOR = phrases(
    "{q} (sees|counts|wants|likes) {n} {h} [in the market].",
    "{q} is {n} years old [now].",
    "{q} (lives|works|waits) in (house|room) {n}.",
    "[Now] the market (offers|shows) {n} {h}.",
)
_GIVEN = (
    "{q} (gives|brings|lends) {n} [more] {g} to {p}.",
    "{q} (gives|brings|lends) {p} {n} [more] {g}.",
)
_TAKEN = (
    "{p} (sends|hands|returns) {n} [of the] {g} to {q}.",
    "{q} (takes|borrows|wins) {n} [of the] {g} from {p}.",
)

_OWN: Mapping[Kind, Phrases] = {
    "start": phrases(
        "{p} (has|owns|holds) {n} {g} [in the box].",
        "{p} (starts|begins) with {n} {g} [in the box].",
        dated=True,
    ),
    "add": phrases(
        "{p} (gets|finds|collects) {n} [more] {g} [from {q}].",
        *_GIVEN,
        dated=True,
    ),
    "sub": phrases(
        "{p} (loses|breaks|drops) {n} [of the] {g}.",
        *_TAKEN,
        dated=True,
    ),
    "mul": phrases(
        "{p} (has|owns|holds) {times} as many {g} [as before].",
        "{p} (has|owns|holds) {times} as many [as before].",
        dated=True,
    ),
    "div": phrases(
        "{p} (keeps|has|holds) [only] {part} of the {g}.",
        "[only] {part} of the {g} (stay|remain|are left) with {p}.",
        dated=True,
    ),
    "ask": phrases(
        "How many {g} (does {p} have|does {p} hold|are with {p}) (now|at the end|in {o})?",
        "(Now|At the end|In {o}) how many {g} (does {p} have|does {p} hold|are with {p})?",
    ),
    "distractor": _DISTRACTOR,
}

_MONEY: Mapping[Kind, Phrases] = {
    **_OWN,
    "add": phrases(
        "{p} (earns|gets|finds) {n} [more] dollars.",
        "{p} sells (some|all) {h} for {n} dollars.",
        *_GIVEN,
        dated=True,
    ),
    "sub": phrases(
        "{p} (spends|pays|loses) {n} [of the] dollars.",
        "{p} (spends|pays) {n} dollars (for|on) (some|all) {h}.",
        "{p} buys (some|all) {h} for {n} dollars.",
        *_TAKEN,
        dated=True,
    ),
}

_HAS = "{o} (has|holds|contains)"
_PLACES: Mapping[Kind, Phrases] = {
    "start": phrases(
        _HAS + " {n} {g} [now].",
        "There are {n} {g} in {o} [now].",
        "In {o} there are {n} {g} [now].",
    ),
    "add": phrases(
        _HAS + " {n} more [{g}] than {r} [does].",
        _HAS + " {n} {g} more than {r} [does].",
        "There are {n} more [{g}] in {o} than in {r}.",
        _HAS + " as many [{g}] as {r} and {n} more.",
    ),
    "sub": phrases(
        _HAS + " {n} fewer [{g}] than {r} [does].",
        _HAS + " {n} {g} fewer than {r} [does].",
        "There are {n} fewer [{g}] in {o} than in {r}.",
        _HAS + " as many [{g}] as {r} but {n} fewer.",
    ),
    "mul": phrases(
        _HAS + " {times} as many [{g}] as {r} [does].",
        _HAS + " {times} the {g} of {r}.",
        "There are {times} as many [{g}] in {o} as in {r}.",
    ),
    "div": phrases(
        _HAS + " [only] {part} as many [{g}] as {r} [does].",
        _HAS + " [only] {part} of the {g} of {r}.",
        "There are [only] {part} as many [{g}] in {o} as in {r}.",
    ),
    "ask": phrases(
        "How many {g} (does {o} have|does {o} hold|are in {o}) [now|at the end]?",
        "How many {g} (does the last {p} have|does the last {p} hold|are in the last {p}) [now]?",
    ),
    "distractor": _DISTRACTOR,
}

_TAKES = "{o} (takes|lasts|needs)"
_EVENTS: Mapping[Kind, Phrases] = {
    "start": phrases(
        _TAKES + " {n} minutes [today|now].",
        "[Today] {n} minutes (are|is) the time of {o}.",
    ),
    "add": phrases(
        _TAKES + " {n} minutes (more|longer) than {r} [does].",
        "{o} is {n} minutes longer than {r} [is].",
        _TAKES + " as long as {r} and {n} minutes more.",
    ),
    "sub": phrases(
        _TAKES + " {n} minutes (less|fewer) than {r} [does].",
        "{o} is {n} minutes shorter than {r} [is].",
        _TAKES + " as long as {r} but {n} minutes less.",
    ),
    "mul": phrases(
        _TAKES + " {times} as long as {r} [does].",
        "{o} is {times} as long as {r} [is].",
        _TAKES + " {times} the (time|minutes) of {r}.",
    ),
    "div": phrases(
        _TAKES + " [only] {part} as long as {r} [does].",
        "{o} is [only] {part} as long as {r} [is].",
        _TAKES + " [only] {part} of the (time|minutes) of {r}.",
    ),
    "ask": phrases(
        "How many minutes (does {o} take|does {o} last|long is {o}) [now|today]?",
        "How many minutes (does the last {p} take|long is the last {p}) [now|today]?",
    ),
    "distractor": _DISTRACTOR,
}

_LETTERED = tuple("{p} " + letter for letter in LETTERS)

THEMES: tuple[Theme, ...] = (
    Theme("goods", PEOPLE, MONTHS, GOODS, _OWN),
    Theme("money", PEOPLE, MONTHS, ("dollars",), _MONEY),
    Theme("places", PLACES, _LETTERED, GOODS, _PLACES),
    Theme("time", EVENTS, _LETTERED, ("minutes",), _EVENTS),
)

_BARE: Mapping[Kind, str] = {
    "start": "{n}",
    "add": "+ {n}",
    "sub": "- {n}",
    "mul": "* {n}",
    "div": "/ {n}",
    "ask": "makes",
    "distractor": "",
}
SUMS = Theme(
    "sums",
    PEOPLE,
    MONTHS,
    GOODS,
    {kind: Phrases((text,), (text,)) for kind, text in _BARE.items()},
)
"""No story: "12 + 4 / 2 makes", calculated from left to right."""
