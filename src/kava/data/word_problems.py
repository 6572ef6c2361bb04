"""The built-in word problems: arithmetic in a few English sentences, graded by its steps.

    In January Ann has 12 apples. Ben is 9 years old. In February Ann gets 4 more apples.
    In March Ann keeps half of the apples. How many apples does Ann have at the end? Results:
    16 8
    Answer: 8

A problem starts with a number and changes it step by step: a number is added or taken away, the
amount is multiplied by 2, 3, 4 or 5 or divided by one of them. Some sentences name a number that
is not needed. No number exceeds `max_number`.

The reasoning is asked for by the question's last word: "Results:" asks for the compact form, the
result of each step, one token a step; "Equations:" for five tokens a step, "12 + 5 = 17", of which
only the last carries what later steps need. The last step is the answer in either form.

The splits share no problem, whatever its wording: whether the numbers and operations of a problem
are a train or a test problem is decided by their hash. They share no phrasing of a sentence either
(`kava.data.word_phrases`).
"""

from __future__ import annotations

import hashlib
import operator
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeVar

from kava.data.records import Record, Template
from kava.data.word_phrases import GOODS, PARTS, PEOPLE, SUMS, THEMES, TIMES, Kind, Theme
from kava.dataset_names import WORD_PROBLEMS_NAME, WORDS_PER_EQUATION, WordProblemsOptions

Split = Literal["train", "test"]
T = TypeVar("T")

WORD_PROBLEMS_TEMPLATE = Template(cue="Answer: ")
ASK = {"compact": "Results:", "equations": "Equations:"}
TEST_FRACTION = 1 / 8
MOST_OPERAND = 12
_DEAD_END = 60
"""Draws of a step that did not fit, after which a problem is begun again."""
_PATIENCE = 2000
"""Draws in a row that give no new problem, after which there are taken to be none left."""


class Step(NamedTuple):
    """One change of the amount: what happens, and the number that does it."""

    kind: Kind
    operand: int


class Problem(NamedTuple):
    """A problem before it has words: where it starts and what happens."""

    start: int
    steps: tuple[Step, ...]

    @property
    def equations(self) -> tuple[tuple[int, str, int, int], ...]:
        """Left operand, operator, right operand, result of each written step."""
        amount, found = self.start, []
        for kind, operand in self.steps:
            result = _APPLY[kind](amount, operand)
            found.append((amount, _SIGN[kind], operand, result))
            amount = result
        return tuple(found)

    @property
    def is_test(self) -> bool:
        """Whether it belongs to the test split, by a hash of its numbers and operations."""
        digest = hashlib.blake2b(repr(tuple(self)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < TEST_FRACTION * 2**64


_SIGN: Mapping[Kind, str] = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "any": tuple(_SIGN),
    "additive": ("add", "sub"),
    "multiplicative": ("mul", "div"),
}
"""The kinds of step that a part of the task has."""
_APPLY: Mapping[Kind, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.floordiv,
}

_THEME = {theme.name: theme for theme in (*THEMES, SUMS)}


def word_problems(
    options: WordProblemsOptions | None = None, *, split: Split = "train"
) -> list[Record]:
    """Draw word problems, all different, by a seeded generator.

    Args:
        options: how many of each split, how many steps and distractors, in which form; `form`
            "both" alternates compact records and equations, to train a teacher that can do
            either. None: the defaults.
        split: train or test, which share no problem and no phrasing.

    Returns:
        The records. `meta` holds `num_steps`, `theme`, `form`, the operator and right operand of
        the last step (`last_operation`), and the indices, among the words of the reasoning, of
        each step's result (`result_words`); of additive and multiplicative problems also the
        name of that part (`teacher_id`).

    Raises:
        ValueError: an unknown split, or more records than there are problems.

    Example:
        >>> word_problems(WordProblemsOptions(steps="3", num_train=1))[0].meta["num_steps"]
        3
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is unknown; choose train or test")
    options = options or WordProblemsOptions()
    num_records = options.num_train if split == "train" else options.num_test
    draw = _Draw(f"{options.seed}-{split}")
    themes = THEMES if options.theme == "stories" else (_THEME[options.theme],)
    forms = list(ASK) if options.form == "both" else [options.form]
    parts = ["additive", "multiplicative"]
    if options.operations != "parts":
        parts = [options.operations]
    records: list[Record] = []
    seen: set[str] = set()
    failures = 0
    while len(records) < num_records:
        part = parts[len(records) % len(parts)]
        num_steps = draw.between(*options.step_range)
        problem = draw_problem(draw, num_steps, options.max_number, KINDS[part])
        if problem.is_test == (split == "test"):
            theme = draw.one_of(themes)
            text = write(draw, problem, theme, split, options)
            if text not in seen:
                seen.add(text)
                form = forms[len(records) % len(forms)]
                asked = (text, form, options.student_form)
                record = _record(f"{split}-{len(records)}", problem, theme.name, *asked)
                if part != "any":
                    record = replace(record, meta={**record.meta, "teacher_id": part})
                records.append(record)
                failures = 0
                continue
        failures += 1
        if failures > _PATIENCE:
            raise ValueError(
                f"{WORD_PROBLEMS_NAME}?num_{split}={num_records} asks for more than the "
                f"{len(records)} different problems that were found with steps={options.steps} "
                f"and max_number={options.max_number}; lower it or raise these"
            )
    return records


class _Draw:
    """Random choices that are the same on every platform and version of Python."""

    def __init__(self, seed: str):
        self._random = random.Random(seed).random

    def between(self, low: int, high: int) -> int:
        """A whole number of low … high."""
        return low + int(self._random() * (high - low + 1))

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[int(self._random() * len(choices))]

    def others(self, choices: Sequence[T], num: int) -> list[T]:
        """Different ones, in random order."""
        left = list(choices)
        return [left.pop(int(self._random() * len(left))) for _ in range(num)]


def draw_problem(
    draw: _Draw, num_steps: int, max_number: int, kinds: Sequence[Kind] | None = None
) -> Problem:
    """Draw a problem with `num_steps` written steps, of all kinds or of some."""
    start = amount = draw.between(2, max_number)
    steps: list[Step] = []
    failures = 0
    while len(steps) < num_steps:
        if failures > _DEAD_END:  # 29 can be neither multiplied nor divided
            start = amount = draw.between(2, max_number)
            steps, failures = [], 0
        step = _draw_step(draw, draw.one_of(kinds or tuple(_SIGN)), amount, max_number)
        failures += 1
        if step is not None:
            failures = 0
            steps.append(step)
            amount = _APPLY[step.kind](amount, step.operand)
    return Problem(start, tuple(steps))


def _draw_step(draw: _Draw, kind: Kind, amount: int, max_number: int) -> Step | None:
    """A step of a kind, with a drawn number; None where that does not fit the amount."""
    if kind in ("add", "sub"):
        most = min(MOST_OPERAND, max_number - amount if kind == "add" else amount - 1)
        return Step(kind, draw.between(2, most)) if most >= 2 else None
    factor = draw.one_of(tuple(TIMES))
    fits = amount * factor <= max_number if kind == "mul" else amount % factor == 0
    return Step(kind, factor) if fits else None


def write(
    draw: _Draw, problem: Problem, theme: Theme, split: Split, options: WordProblemsOptions
) -> str:
    """A problem in sentences, without the word that asks for a form."""
    subject, *others = draw.others(theme.subjects, 1) + draw.others(PEOPLE, 3)
    others = [one for one in others if one != subject]
    goods = draw.one_of(theme.goods)
    other_goods = [one for one in GOODS if one != goods]

    def say(kind: Kind, place: int, **numbers: object) -> str:
        phrasings: tuple[str, ...] = getattr(theme.phrases[kind], split)
        sentence = draw.one_of(phrasings).format(
            o=theme.labels[place].format(p=subject),
            r=theme.labels[place - 1].format(p=subject),
            p=subject,
            q=draw.one_of(others),
            g=goods,
            h=draw.one_of(other_goods),
            **numbers,
        )
        return sentence[:1].upper() + sentence[1:]

    sentences = [say("start", 0, n=problem.start)]
    for place, (kind, operand) in enumerate(problem.steps, start=1):
        words = {"times": TIMES.get(operand), "part": PARTS.get(operand)}
        sentences.append(say(kind, place, n=operand, **words))
    for _ in range(draw.between(*options.distractor_range)):
        number = draw.between(2, options.max_number)
        sentences.insert(draw.between(0, len(sentences)), say("distractor", 0, n=number))
    return " ".join(filter(None, [*sentences, say("ask", len(problem.steps))]))


def _record(
    name: str, problem: Problem, theme: str, text: str, form: str, student_form: str | None
) -> Record:
    equations = problem.equations
    if form == "equations":
        reasoning = "\n".join(f"{a} {sign} {b} = {c}" for a, sign, b, c in equations)
    else:
        reasoning = " ".join(str(c) for *_, c in equations)
    own = student_form if student_form not in (None, form) else None
    num_words = WORDS_PER_EQUATION[form]
    return Record(
        id=f"word-problem-{name}",
        question=f"{text} {ASK[form]}",
        reasoning=reasoning,
        answer=str(equations[-1][-1]),
        student_question=None if own is None else f"{text} {ASK[own]}",
        step_separator="\n" if form == "equations" else " ",
        meta={
            "form": form,
            "num_steps": len(equations),
            "theme": theme,
            "last_operation": equations[-1][1:3],
            "result_words": tuple(num_words * (i + 1) - 1 for i in range(len(equations))),
        },
    )


class Chance(NamedTuple):
    """Accuracy of guesses, from 0 to 1.

    Attributes:
        most_frequent: of the answer that is most frequent in training, whatever is asked.
        last_operation: of the most frequent answer after the same last operation, "- 3".
    """

    most_frequent: float
    last_operation: float


def chance(train: Sequence[Record], test: Sequence[Record]) -> Chance:
    """How often guesses that were learned on train records are right on test records.

    Example:
        >>> train, test = word_problems(), word_problems(split="test")
        >>> chance(train, test).most_frequent < 0.1
        True
    """
    answers: Counter[str] = Counter(record.answer for record in train)
    after: dict[object, Counter[str]] = defaultdict(Counter)
    for record in train:
        after[record.meta["last_operation"]][record.answer] += 1
    (usual, _), *_ = answers.most_common(1)
    guesses = {last: found.most_common(1)[0][0] for last, found in after.items()}
    return Chance(
        most_frequent=sum(record.answer == usual for record in test) / len(test),
        last_operation=sum(
            record.answer == guesses.get(record.meta["last_operation"], usual) for record in test
        )
        / len(test),
    )
