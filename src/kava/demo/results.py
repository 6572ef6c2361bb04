"""What the runs gave: one result per run, intervals per arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kava.data.shell_game import CHANCE
from kava.demo.arms import Arm
from kava.files.write import write_whole
from kava.format import percent
from kava.statistics.intervals import wilson

CHANCE_MARGIN = 0.10
CONFIDENCE = 0.95
"""Of all intervals."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run gave.

    Attributes:
        arm: the arm's name.
        seed: the run's seed.
        accuracy: share of right answers, 0 to 1.
        num_items: questions answered.
        train_seconds: wall time of the training steps, evaluations left out.
        aligner_parameters: of the maps of keys and values from one geometry to the other.
        r_squared: of the variance of held-out keys and values, the share that the calibrated maps
            explain, averaged over the student's layers; None where nothing is calibrated.
        kv: the KV loss on held-out samples at the end; None where no cache is matched.
        kv_wrong_sample: the same against the targets of other samples.
    """

    arm: str
    seed: int
    accuracy: float
    num_items: int
    train_seconds: float
    aligner_parameters: int = 0
    r_squared: float | None = None
    kv: float | None = None
    kv_wrong_sample: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result(Outcome):
    """What one run gave, and what an answer of its student costs.

    Attributes:
        forward_passes: of the model per answer, one question at a time.
        seconds_per_answer: wall time, one question at a time on one thread.
    """

    forward_passes: float
    seconds_per_answer: float

    @property
    def milliseconds(self) -> float:
        """Per answer."""
        return 1000 * self.seconds_per_answer


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An arm over its seeds.

    Attributes:
        arm: the arm.
        results: its runs.
        accuracy: the mean over seeds.
        low: lower end of the 95 % Wilson interval.
        high: its upper end.
    """

    arm: Arm
    results: tuple[Result, ...]
    accuracy: float
    low: float
    high: float

    @property
    def forward_passes(self) -> float:
        """Mean over seeds."""
        return _mean([result.forward_passes for result in self.results])

    @property
    def milliseconds(self) -> float:
        """Per answer, mean over seeds."""
        return _mean([result.milliseconds for result in self.results])

    @property
    def train_seconds(self) -> float:
        """Mean over seeds."""
        return _mean([result.train_seconds for result in self.results])

    @property
    def aligner_parameters(self) -> int:
        """The same for all seeds."""
        return self.results[0].aligner_parameters

    @property
    def r_squared(self) -> float | None:
        """Mean over seeds; None where nothing is calibrated."""
        return _mean_known([result.r_squared for result in self.results])

    @property
    def kv(self) -> float | None:
        """Mean over seeds; None where no cache is matched."""
        return _mean_known([result.kv for result in self.results])

    @property
    def kv_wrong_sample(self) -> float | None:
        """Mean over seeds; None where no cache is matched."""
        return _mean_known([result.kv_wrong_sample for result in self.results])

    def reaches(self, goal: float) -> bool:
        """Whether every seed is right at least so often."""
        return all(result.accuracy >= goal for result in self.results)


@dataclass(frozen=True)
class Expectation:
    """Something the demo is to show, and whether this run showed it.

    Attributes:
        text: what is expected.
        met: whether it was seen; None where the arms for it were not run.
        seen: the numbers that decided.
    """

    text: str
    met: bool | None
    seen: str

    def __str__(self) -> str:
        word = {True: "met", False: "NOT MET", None: "not run"}[self.met]
        return f"{word}: {self.text}" + (f" ({self.seen})" if self.seen else "")


RESULT_KEYS = (
    "arm", "seed", "accuracy", "num_items", "forward_passes", "seconds_per_answer", "train_seconds",
    "aligner_parameters", "r_squared", "kv", "kv_wrong_sample",
)  # fmt: skip
"""The keys of a run in results.json."""


def save_results(path: Path, results: Sequence[Result]) -> None:
    """Write results as a JSON list."""
    rows = [asdict(result) for result in results]
    save_json(path, [{key: row[key] for key in RESULT_KEYS} for row in rows])


def save_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the file is whole or absent."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def summarize(arms: Sequence[Arm], results: Sequence[Result]) -> list[Summary]:
    """One summary for every arm that has results.

    The interval is Wilson's for the mean over seeds, of as many questions as one seed was asked:
    all seeds answer the same ones, so that more seeds do not make more questions.
    """
    summaries = []
    for arm in arms:
        own = tuple(result for result in results if result.arm == arm.name)
        if own:
            accuracy = _mean([result.accuracy for result in own])
            num_items = min(result.num_items for result in own)
            low, high = wilson(round(accuracy * num_items), num_items, CONFIDENCE)
            summaries.append(Summary(arm=arm, results=own, accuracy=accuracy, low=low, high=high))
    return summaries


def listed(results: Sequence[Result]) -> str:
    """The accuracies of runs, by arm.

    Example:
        >>> listed(results)
        'codi 3.9 %, 4.4 %; kv 100.0 %'
    """
    by_arm: dict[str, list[str]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(percent(result.accuracy))
    return "; ".join(f"{arm} {', '.join(values)}" for arm, values in by_arm.items())


def with_seeds(summaries: Sequence[Summary], every: str = "every seed") -> str:
    """Over how many runs a statement of arms is made: "every seed", or "a single seed".

    Example:
        >>> with_seeds(summaries)
        'every seed'
    """
    return "a single seed" if all(len(s.results) == 1 for s in summaries) else every


def single_seeds(summaries: Sequence[Summary]) -> str:
    """Which arms have one run only, as a sentence; empty where none has."""
    single = [s.arm.name for s in summaries if len(s.results) == 1]
    if not single:
        return ""
    if len(single) == len(summaries):
        return "All of it is of a single seed, and says nothing of other runs."
    return f"Of a single seed, which says nothing of other runs: {', '.join(single)}."


def near_chance(accuracy: float) -> bool:
    """Within 10 points of a guess."""
    return abs(accuracy - CHANCE) <= CHANCE_MARGIN


def expect(text: str, results: Sequence[Result], met: bool) -> Expectation:
    """An expectation that these runs decide; not run where there are none."""
    return Expectation(text, met if results else None, listed(results))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None
