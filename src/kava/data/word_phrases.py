"""The sentences of the built-in word problems: what each kind of step reads like, by theme.

Every kind of sentence has phrasings for the train split and others for the test split. No phrasing
stands in both, and every word of a test phrasing stands in a train phrasing of the same theme and
kind, so that a test asks for new sentences and not for new words.

Slots: {p} whom the problem is about, {x} whom {p} is compared with, {q} somebody else, {g} the
goods, {h} other goods, {n} a number, {k} and {c} the factors of a product, {times} "twice" or
"3 times", {part} "half" or "a third".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["start", "add", "sub", "mul", "div", "earn", "pay", "ask", "distractor"]
"""What a sentence does. It begins, asks, or takes one step (add … div) or two: earn adds and pay
subtracts a product. A distractor names a number that is not needed."""

TIMES: Mapping[int, str] = {2: "twice", 3: "3 times", 4: "4 times"}
PARTS: Mapping[int, str] = {2: "half", 3: "a third", 4: "a quarter"}

PEOPLE = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jim", "Kate", "Leo")
GOODS = ("apples", "pears", "books", "pens", "cups", "cards", "shells", "coins", "nuts", "eggs")
ACTIVITIES = (
    *("the walk", "the ride", "the swim", "the game", "the lesson", "the film"),
    *("the meal", "the song", "the race", "the talk", "the trip", "the dance"),
)


class Phrases(NamedTuple):
    """The phrasings of one kind of sentence, by split."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Theme:
    """A small world that problems are about.

    Attributes:
        name: of the theme.
        subjects: whom or what {p}, {x} and {q} may name.
        goods: what {g} may name.
        compares: whether each step is about a new subject, compared with the one before, or
            about one amount that changes.
        phrases: by kind of sentence.
    """

    name: str
    subjects: tuple[str, ...]
    goods: tuple[str, ...]
    compares: bool
    phrases: Mapping[Kind, Phrases]


_DISTRACTOR = Phrases(
    train=(
        "{q} has {n} {h}.",
        "{p} is {n} years old.",
        "The shop has {n} {h}.",
        "{q} lives in house {n}.",
        "{q} sees {n} {h} in the shop.",
    ),
    test=("{q} is {n} years old.", "{q} sees {n} {h}.", "{p} lives in house {n}."),
)

_OWN: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=(
            "{p} has {n} {g}.",
            "At first {p} has {n} {g}.",
            "{p} starts with {n} {g}.",
            "There are {n} {g} in the box of {p}.",
        ),
        test=("At first {p} starts with {n} {g}.", "{p} has {n} {g} in the box."),
    ),
    "add": Phrases(
        train=(
            "{p} gets {n} more {g}.",
            "{p} gets {n} {g} from {q}.",
            "{q} gives {n} {g} to {p}.",
            "Then {p} finds {n} {g}.",
            "{p} finds {n} more.",
            "Then {q} brings {n} more {g} to {p}.",
            "From {q} {p} gets {n} {g}.",
        ),
        test=(
            "Then {p} gets {n} {g}.",
            "{p} finds {n} more {g}.",
            "{q} brings {n} {g} to {p}.",
            "Then {q} gives {n} more {g} to {p}.",
        ),
    ),
    "sub": Phrases(
        train=(
            "{p} loses {n} {g}.",
            "{p} gives {n} {g} to {q}.",
            "{q} takes {n} {g} from {p}.",
            "Then {p} loses {n}.",
            "{p} sends {n} of the {g} to {q}.",
            "Then {q} takes {n} of the {g}.",
            "Of the {g} {p} loses {n}.",
        ),
        test=(
            "Then {p} loses {n} {g}.",
            "{p} sends {n} {g} to {q}.",
            "{q} takes {n} of the {g} from {p}.",
            "Then {p} gives {n} of the {g} to {q}.",
        ),
    ),
    "mul": Phrases(
        train=(
            "Then {p} has {times} as many {g}.",
            "Now {p} has {times} as many.",
            "Soon {p} has {times} as many {g} as before.",
            "The {g} of {p} become {times} as many.",
        ),
        test=(
            "Now {p} has {times} as many {g} as before.",
            "The {g} of {p} become {times} as many as before.",
        ),
    ),
    "div": Phrases(
        train=(
            "{p} keeps {part} of the {g}.",
            "Then {p} keeps only {part}.",
            "Only {part} of the {g} stay with {p}.",
            "{p} makes {k} equal parts of the {g} and keeps one.",
            "Then {p} makes {k} equal parts and keeps only one part.",
        ),
        test=(
            "Then {p} keeps only {part} of the {g}.",
            "Only {part} stay with {p}.",
            "Then {p} makes {k} equal parts of the {g} and keeps one.",
        ),
    ),
    "earn": Phrases(
        train=(
            "{p} gets {k} bags of {c} {g} each.",
            "{q} brings {k} bags to {p} with {c} {g} each.",
            "Then {p} finds {k} bags with {c} {g} each.",
        ),
        test=(
            "Then {p} gets {k} bags with {c} {g} each.",
            "{q} brings {k} bags of {c} {g} each to {p}.",
        ),
    ),
    "pay": Phrases(
        train=(
            "{p} loses {k} bags of {c} {g} each.",
            "{p} gives {k} bags to {q} with {c} {g} each.",
            "Then {q} takes {k} bags with {c} {g} each from {p}.",
        ),
        test=(
            "Then {p} loses {k} bags with {c} {g} each.",
            "{p} gives {k} bags of {c} {g} each to {q}.",
        ),
    ),
    "ask": Phrases(
        train=(
            "How many {g} does {p} have now?",
            "At the end {p} has how many {g}?",
            "Now how many {g} are with {p}?",
        ),
        test=("At the end how many {g} does {p} have?", "How many {g} are with {p} now?"),
    ),
    "distractor": _DISTRACTOR,
}

_MONEY: Mapping[Kind, Phrases] = {
    **_OWN,
    "add": Phrases(
        train=(*_OWN["add"].train, "{p} earns {n} dollars.", "Then {p} earns {n} more."),
        test=(*_OWN["add"].test, "{p} earns {n} more dollars."),
    ),
    "sub": Phrases(
        train=(
            *_OWN["sub"].train,
            "{p} spends {n} dollars.",
            "{p} pays {n} dollars for {h}.",
            "Then {p} spends {n} on {h}.",
        ),
        test=(
            *_OWN["sub"].test,
            "{p} spends {n} dollars on {h}.",
            "Then {p} pays {n} for {h}.",
        ),
    ),
    "earn": Phrases(
        train=(
            "{p} works {k} hours for {c} dollars each.",
            "{p} sells {k} {h} for {c} dollars each.",
            "Then {p} sells {k} {h} to {q} for {c} dollars each.",
        ),
        test=(
            "Then {p} works {k} hours for {c} dollars each.",
            "{p} sells {q} {k} {h} for {c} dollars each.",
        ),
    ),
    "pay": Phrases(
        train=(
            "{p} buys {k} {h} for {c} dollars each.",
            "{p} buys {k} {h} from {q} for {c} dollars each.",
            "Then {p} pays {c} dollars each for {k} {h}.",
        ),
        test=(
            "Then {p} buys {k} {h} for {c} dollars each.",
            "{p} pays {q} {c} dollars each for {k} {h}.",
        ),
    ),
}

_COMPARE: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=("{p} has {n} {g}.", "Now there are {n} {g} with {p}.", "Here {p} has {n} {g}."),
        test=("Now {p} has {n} {g}.", "Here there are {n} {g} with {p}."),
    ),
    "add": Phrases(
        train=(
            "{p} has {n} more {g} than {x}.",
            "{p} has {n} more than {x}.",
            "{p} has as many {g} as {x} and {n} more.",
            "Here {p} has {n} {g} more than {x}.",
        ),
        test=("{p} has {n} {g} more than {x}.", "Here {p} has as many as {x} and {n} more."),
    ),
    "sub": Phrases(
        train=(
            "{p} has {n} fewer {g} than {x}.",
            "{p} has {n} fewer than {x}.",
            "{p} has as many {g} as {x} but {n} fewer.",
            "Here {p} has {n} {g} fewer than {x}.",
        ),
        test=("{p} has {n} {g} fewer than {x}.", "Here {p} has as many as {x} but {n} fewer."),
    ),
    "mul": Phrases(
        train=(
            "{p} has {times} as many {g} as {x}.",
            "{p} has {times} as many as {x}.",
            "Here {p} has {times} the {g} of {x}.",
        ),
        test=("Here {p} has {times} as many {g} as {x}.", "{p} has {times} the {g} of {x}."),
    ),
    "div": Phrases(
        train=(
            "{p} has {part} as many {g} as {x}.",
            "{p} has {part} as many as {x}.",
            "Here {p} has {part} of the {g} of {x}.",
        ),
        test=("Here {p} has {part} as many {g} as {x}.", "{p} has {part} of the {g} of {x}."),
    ),
    "earn": Phrases(
        train=(
            "{p} has {k} bags of {c} {g} more than {x}.",
            "{p} has as many {g} as {x} and {k} bags of {c} more.",
        ),
        test=("{p} has as many {g} as {x} and {k} more bags of {c}.",),
    ),
    "pay": Phrases(
        train=(
            "{p} has {k} bags of {c} {g} fewer than {x}.",
            "{p} has as many {g} as {x} but {k} bags of {c} fewer.",
        ),
        test=("{p} has as many {g} as {x} but {k} fewer bags of {c}.",),
    ),
    "ask": Phrases(
        train=("How many {g} does {p} have?", "At the end how many {g} are with {p}?"),
        test=("How many {g} are with {p}?",),
    ),
    "distractor": _DISTRACTOR,
}

_TIME: Mapping[Kind, Phrases] = {
    "start": Phrases(
        train=("{p} takes {n} minutes.", "Today {p} takes {n} minutes.", "{p} lasts {n} minutes."),
        test=("Today {p} lasts {n} minutes.",),
    ),
    "add": Phrases(
        train=(
            "{p} takes {n} minutes more than {x}.",
            "{p} is {n} minutes longer than {x}.",
            "{p} lasts as long as {x} and {n} minutes more.",
        ),
        test=("{p} lasts {n} minutes more than {x}.", "{p} takes {n} minutes longer than {x}."),
    ),
    "sub": Phrases(
        train=(
            "{p} takes {n} minutes less than {x}.",
            "{p} is {n} minutes shorter than {x}.",
            "{p} lasts as long as {x} but {n} minutes less.",
        ),
        test=("{p} lasts {n} minutes less than {x}.", "{p} takes as long as {x} but {n} minutes less."),
    ),
    "mul": Phrases(
        train=(
            "{p} takes {times} as long as {x}.",
            "{p} is {times} as long as {x}.",
            "{p} lasts {times} the time of {x}.",
        ),
        test=("{p} lasts {times} as long as {x}.", "{p} takes {times} the time of {x}."),
    ),
    "div": Phrases(
        train=(
            "{p} takes {part} as long as {x}.",
            "{p} is {part} as long as {x}.",
            "{p} lasts {part} of the time of {x}.",
        ),
        test=("{p} lasts {part} as long as {x}.", "{p} takes {part} of the time of {x}."),
    ),
    "earn": Phrases(
        train=(
            "{p} is {k} breaks of {c} minutes longer than {x}.",
            "{p} lasts as long as {x} and {k} breaks of {c} minutes more.",
        ),
        test=("{p} lasts {k} breaks of {c} minutes longer than {x}.",),
    ),
    "pay": Phrases(
        train=(
            "{p} is {k} breaks of {c} minutes shorter than {x}.",
            "{p} lasts as long as {x} but {k} breaks of {c} minutes less.",
        ),
        test=("{p} lasts {k} breaks of {c} minutes shorter than {x}.",),
    ),
    "ask": Phrases(
        train=("How many minutes does {p} take?", "How many minutes long is {p}?"),
        test=("How many minutes is {p} long?",),
    ),
    "distractor": Phrases(
        train=(
            "{q} starts at {n}.",
            "At {n} {q} ends.",
            "{n} people see {q}.",
            "Today {n} people come to {q}.",
        ),
        test=("At {n} {q} starts.", "{n} people come to {q}."),
    ),
}

THEMES: tuple[Theme, ...] = (
    Theme("goods", PEOPLE, GOODS, compares=False, phrases=_OWN),
    Theme("money", PEOPLE, ("dollars",), compares=False, phrases=_MONEY),
    Theme("people", PEOPLE, GOODS, compares=True, phrases=_COMPARE),
    Theme("time", ACTIVITIES, ("minutes",), compares=True, phrases=_TIME),
)
