"""The sentences of the built-in word problems: what each kind of step reads like, by theme.

Every kind of sentence has phrasings for the train split and others for the test split. No phrasing
stands in both, and every word of a test phrasing stands in a train phrasing of the same theme and
kind, so that a test asks for new sentences and not for new words.

Each step is labelled by a month or a letter, in their order ("In March …", "box C …"): a small
model is to learn to calculate, and not to count sentences.

Slots: {o} the label of a step and {r} the label before it, {p} whom the problem is about or the
kind of thing that it compares, {q} somebody else, {g} the goods, {h} other goods, {n} a
number, {times} "twice" or "3 times", {part} "half" or "a third".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["start", "add", "sub", "mul", "div", "ask", "distractor"]
"""What a sentence does. A distractor names a number that is not needed."""

MONTHS = (*("January", "February", "March", "April", "May", "June", "July", "August", "September"),)
LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H", "I")
TIMES: Mapping[int, str] = {2: "twice", 3: "3 times", 4: "4 times", 5: "5 times"}
PARTS: Mapping[int, str] = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}

PEOPLE = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jim", "Kate", "Leo")
GOODS = ("apples", "pears", "books", "pens", "cups", "cards", "shells", "coins", "nuts", "eggs")
PLACES = ("box", "bag", "shelf", "basket", "drawer", "tray")
EVENTS = ("lap", "lesson", "song", "film", "walk", "trip")


class Phrases(NamedTuple):
    """The phrasings of one kind of sentence, by split."""

    train: tuple[str, ...]
    test: tuple[str, ...]


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


_DISTRACTOR = Phrases(
    train=(
        "{q} has {n} {h}.",
        "{q} is {n} years old.",
        "The market has {n} {h}.",
        "{q} lives in house {n}.",
        "{q} sees {n} {h} in the market.",
    ),
    test=("{q} sees {n} {h}.", "{q} is in house {n}.", "{q} has {n} {h} in the market."),
)

_OWN: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=(
            "In {o} {p} has {n} {g}.",
            "{p} starts in {o} with {n} {g}.",
            "{o} begins with {n} {g} for {p}.",
        ),
        test=("{p} has {n} {g} in {o}.", "{p} begins {o} with {n} {g}."),
    ),
    "add": Phrases(
        train=(
            "In {o} {p} gets {n} more {g}.",
            "In {o} {p} finds {n} {g}.",
            "{q} gives {n} {g} to {p} in {o}.",
            "In {o} {q} brings {n} {g} to {p}.",
            "{p} gets {n} {g} from {q} in {o}.",
            "{o} brings {n} more {g}.",
        ),
        test=(
            "{p} finds {n} more {g} in {o}.",
            "In {o} {q} gives {n} {g} to {p}.",
            "{q} brings {n} more {g} to {p} in {o}.",
        ),
    ),
    "sub": Phrases(
        train=(
            "In {o} {p} loses {n} {g}.",
            "{p} gives {n} {g} to {q} in {o}.",
            "{q} takes {n} {g} from {p} in {o}.",
            "In {o} {p} sends {n} of the {g} to {q}.",
            "{o} costs {p} {n} {g}.",
            "In {o} {q} takes {n} {g}.",
        ),
        test=(
            "{p} loses {n} of the {g} in {o}.",
            "In {o} {p} gives {n} {g} to {q}.",
            "{p} sends {n} {g} to {q} in {o}.",
        ),
    ),
    "mul": Phrases(
        train=(
            "In {o} {p} has {times} as many {g}.",
            "{p} has {times} as many in {o}.",
            "In {o} {p} gets {times} as many {g} as before.",
        ),
        test=(
            "{p} has {times} as many {g} in {o}.",
            "{p} gets {times} as many {g} as before in {o}.",
        ),
    ),
    "div": Phrases(
        train=(
            "In {o} {p} keeps {part} of the {g}.",
            "{p} keeps only {part} in {o}.",
            "In {o} only {part} of the {g} stay with {p}.",
            "{o} leaves {p} with {part}.",
        ),
        test=(
            "{p} keeps {part} of the {g} in {o}.",
            "In {o} {p} keeps only {part} of the {g}.",
            "{o} leaves {p} with only {part} of the {g}.",
        ),
    ),
    "ask": Phrases(
        train=(
            "How many {g} does {p} have in {o}?",
            "How many {g} does {p} have at the end?",
            "At the end how many {g} are with {p}?",
        ),
        test=(
            "How many {g} are with {p} at the end?",
            "How many {g} are with {p} in {o}?",
            "At the end how many {g} does {p} have?",
        ),
    ),
    "distractor": _DISTRACTOR,
}

_MONEY: Mapping[Kind, Phrases] = {
    **_OWN,
    "add": Phrases(
        train=(
            "In {o} {p} earns {n} dollars.",
            "{p} gets {n} dollars from {q} in {o}.",
            "In {o} {q} gives {n} dollars to {p}.",
            "{p} sells {h} for {n} dollars in {o}.",
            "{o} brings {n} more dollars.",
        ),
        test=(
            "{p} earns {n} more dollars in {o}.",
            "In {o} {p} sells {h} for {n} dollars.",
            "{q} gives {n} more dollars to {p} in {o}.",
        ),
    ),
    "sub": Phrases(
        train=(
            "In {o} {p} spends {n} dollars.",
            "{p} pays {n} dollars for {h} in {o}.",
            "In {o} {p} gives {n} dollars to {q}.",
            "{p} buys {h} for {n} dollars in {o}.",
            "{o} costs {p} {n} dollars.",
        ),
        test=(
            "{p} spends {n} dollars for {h} in {o}.",
            "In {o} {p} buys {h} for {n} dollars.",
            "{p} gives {n} dollars to {q} in {o}.",
        ),
    ),
}

_PLACES: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=(
            "{o} has {n} {g}.",
            "There are {n} {g} in {o}.",
            "In {o} there are {n} of the {g}.",
        ),
        test=("In {o} are {n} {g}.", "There are {n} of the {g} in {o}."),
    ),
    "add": Phrases(
        train=(
            "{o} has {n} more {g} than {r}.",
            "{o} has {n} more than {r}.",
            "There are {n} more {g} in {o} than in {r}.",
            "{o} has as many {g} as {r} and {n} more.",
        ),
        test=(
            "{o} has {n} {g} more than {r}.",
            "There are {n} more in {o} than in {r}.",
            "{o} has as many as {r} and {n} more.",
        ),
    ),
    "sub": Phrases(
        train=(
            "{o} has {n} fewer {g} than {r}.",
            "{o} has {n} fewer than {r}.",
            "There are {n} fewer {g} in {o} than in {r}.",
            "{o} has as many {g} as {r} but {n} fewer.",
        ),
        test=(
            "{o} has {n} {g} fewer than {r}.",
            "There are {n} fewer in {o} than in {r}.",
            "{o} has as many as {r} but {n} fewer.",
        ),
    ),
    "mul": Phrases(
        train=(
            "{o} has {times} as many {g} as {r}.",
            "There are {times} as many in {o} as in {r}.",
            "{o} has {times} the {g} of {r}.",
        ),
        test=(
            "{o} has {times} as many as {r}.",
            "There are {times} as many {g} in {o} as in {r}.",
        ),
    ),
    "div": Phrases(
        train=(
            "{o} has {part} as many {g} as {r}.",
            "There are {part} as many in {o} as in {r}.",
            "{o} has {part} of the {g} of {r}.",
        ),
        test=(
            "{o} has {part} as many as {r}.",
            "There are {part} as many {g} in {o} as in {r}.",
        ),
    ),
    "ask": Phrases(
        train=(
            "How many {g} does {o} have?",
            "How many are in {o} now?",
            "How many {g} has the last {p}?",
        ),
        test=("How many {g} are in {o}?", "How many does the last {p} have now?"),
    ),
    "distractor": _DISTRACTOR,
}

_EVENTS: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=(
            "{o} takes {n} minutes.",
            "{o} lasts {n} minutes.",
            "{n} minutes is the time of {o}.",
        ),
        test=("{n} minutes is the time {o} takes.",),
    ),
    "add": Phrases(
        train=(
            "{o} takes {n} minutes more than {r}.",
            "{o} is {n} minutes longer than {r}.",
            "{o} lasts as long as {r} and {n} minutes more.",
        ),
        test=(
            "{o} lasts {n} minutes more than {r}.",
            "{o} takes {n} minutes longer than {r}.",
        ),
    ),
    "sub": Phrases(
        train=(
            "{o} takes {n} minutes less than {r}.",
            "{o} is {n} minutes shorter than {r}.",
            "{o} lasts as long as {r} but {n} minutes less.",
        ),
        test=(
            "{o} lasts {n} minutes less than {r}.",
            "{o} takes as long as {r} but {n} minutes less.",
        ),
    ),
    "mul": Phrases(
        train=(
            "{o} takes {times} as long as {r}.",
            "{o} is {times} as long as {r}.",
            "{o} lasts {times} the time of {r}.",
        ),
        test=(
            "{o} lasts {times} as long as {r}.",
            "{o} takes {times} the time of {r}.",
        ),
    ),
    "div": Phrases(
        train=(
            "{o} takes {part} as long as {r}.",
            "{o} is {part} as long as {r}.",
            "{o} lasts {part} of the time of {r}.",
        ),
        test=(
            "{o} lasts {part} as long as {r}.",
            "{o} takes {part} of the time of {r}.",
        ),
    ),
    "ask": Phrases(
        train=(
            "How many minutes does {o} take?",
            "How long is {o}?",
            "How many minutes long is the last {p}?",
        ),
        test=("How many minutes does the last {p} take?", "How many minutes long is {o}?"),
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
