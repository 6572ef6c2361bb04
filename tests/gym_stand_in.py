"""A small stand-in for the package reasoning_gym: its registry, and tasks of every kind."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any, Literal

import pytest

from kava.data import gym


@dataclass
class Config:
    """The settings of every task here."""

    largest: int = 10**6
    ratio: float = 0.5
    operators: list[str] = field(default_factory=lambda: ["+"])
    style: Literal["short", "long"] = "short"
    nested: dict[str, int] = field(default_factory=dict)
    seed: int | None = None
    size: int = 50

    def validate(self) -> None:
        """As the package does: by assertions, with a text or without."""
        assert self.largest > 0, "largest must be positive"
        assert 0 <= self.ratio <= 1


class Drawn:
    """A task: problem i is drawn by seed + i."""

    def __init__(self, config: Config):
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Any]:
        print(".", end="")  # some tasks of the package print while they draw
        assert self.config.seed is not None
        draw = Random(self.config.seed + index)
        sign = draw.choice(self.config.operators)
        a, b = (draw.randint(1, self.config.largest) for _ in range(2))
        answer = a + b if sign == "+" else a - b
        return self.write(f"What is {a} {sign} {b}?", str(answer), a, b)

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        """The problem, with what else its kind has."""
        return {"question": question, "answer": answer, "metadata": {"difficulty": 1}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        """Full score for the one right answer."""
        return float(answer == entry["answer"])


class Solved(Drawn):
    """With a written solution that ends with its answer."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        first = f"Take {a}, which is the first of the two numbers that the question names."
        solution = f"{first}\nWith {b} that is {answer}.\n#### {answer}.0"
        return {"question": question, "answer": answer, "metadata": {"answer_cot": solution}}


class Stateful(Drawn):
    """With the states that lead to the answer."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        states = [[a, b], [int(answer), 0]]
        return {"question": question, "answer": f"{answer} 0", "metadata": {"states": states}}


class Scored(Drawn):
    """With several right answers: every word list of the right length."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        return {"question": f"Two words for {a}, {b}", "answer": "fill A", "metadata": {"n": 2}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        words = answer.split()
        entry["metadata"]["seen"] = words  # the package keeps notes there
        if words[0] == "raise":
            raise KeyError(words[0])
        return 1.0 if len(words) == entry["metadata"]["n"] else 0.5


class Grid(Drawn):
    """With an answer of several lines."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        return {"question": question, "answer": "3\n\n0 2", "metadata": None}


class Unanswered(Drawn):
    """With a scorer alone."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        return {"question": question, "answer": None, "metadata": {}}


class Failing(Drawn):
    """Which cannot be drawn."""

    def write(self, question: str, answer: str, a: int, b: int) -> dict[str, Any]:
        raise RuntimeError("no puzzle\nwas found")


TASKS = {
    "gsm_symbolic": Solved,
    "string_splitting": Stateful,
    "chain_sum": Drawn,
    "jugs": Scored,
    "sokoban_like": Scored,
    "grid": Grid,
    "graph_color": Unanswered,
    "failing": Failing,
    "word_ladder": Drawn,
    "composite": Drawn,
}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import reasoning_gym` find the stand-in."""
    package, factory = ModuleType("reasoning_gym"), ModuleType("reasoning_gym.factory")
    registry = {name: (kind, Config) for name, kind in TASKS.items()}

    def create_dataset(name: str, **settings: Any) -> Drawn:
        kind, config = registry[name]
        return kind(config(**settings))

    factory.DATASETS = registry  # type: ignore[attr-defined]
    factory.create_dataset = create_dataset  # type: ignore[attr-defined]
    package.factory = factory  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
    forget()


def forget() -> None:
    """Drop what was drawn before, by the package or by the stand-in."""
    gym._items.cache_clear()
    gym._dataset.cache_clear()
