"""What the runs gave: one result per run, intervals per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kava.data.shell_game import CHANCE
from kava.format import percent
from kava.report.accounts import r_squared_of
from kava.report.logs import ArmLogs
from kava.statistics.intervals import wilson
from kava.study.plan import Arm

CHANCE_MARGIN = 0.10
CONFIDENCE = 0.95
"""Of all intervals."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run gave, as results.json has it.

    Attributes:
        arm: the arm's name.
        seed: the run's seed.
        accuracy: share of right answers, 0 to 1.
        num_items: questions answered.
        forward_passes: of the model per answer, one question at a time.
        seconds_per_answer: wall time, one question at a time on one thread.
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
    forward_passes: float
    seconds_per_answer: float
    train_seconds: float
    aligner_parameters: int = 0
    r_squared: float | None = None
    kv: float | None = None
    kv_wrong_sample: float | None = None


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
        return sum(result.forward_passes for result in self.results) / len(self.results)

    @property
    def aligner_parameters(self) -> int:
        """The same for all seeds."""
        return self.results[0].aligner_parameters

    @property
    def r_squared(self) -> float | None:
        """Mean over seeds; None where nothing is calibrated."""
        return mean_known([result.r_squared for result in self.results])

    @property
    def kv(self) -> float | None:
        """Mean over seeds; None where no cache is matched."""
        return mean_known([result.kv for result in self.results])

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


def results_of(arms: Sequence[ArmLogs], costs: Mapping[str, Mapping[str, Any]]) -> list[Result]:
    """What the finished runs of arms gave.

    Args:
        arms: in the order of the results.
        costs: of an answer, by run.
    """
    return [
        Result(
            arm=run.arm,
            seed=run.seed,
            accuracy=run.accuracy,
            num_items=len(run.correct),
            forward_passes=costs[run.name]["forward_passes"],
            seconds_per_answer=costs[run.name]["seconds_per_answer"],
            train_seconds=run.result["train_seconds"],
            aligner_parameters=run.result["aligner_parameters"],
            r_squared=r_squared_of(run, "keys", "values"),
            kv=run.result["last"]["kv"],
            kv_wrong_sample=run.result["last"]["kv_wrong_sample"],
        )
        for arm in arms
        for run in arm.finished
    ]


def summarize(arms: Sequence[Arm], results: Sequence[Result]) -> list[Summary]:
    """One summary for every arm that has results.

    The interval is Wilson's for the mean over seeds, of as many questions as one seed was asked:
    all seeds answer the same ones, so that more seeds do not make more questions.
    """
    summaries = []
    for arm in arms:
        own = tuple(result for result in results if result.arm == arm.name)
        if own:
            accuracy = sum(result.accuracy for result in own) / len(own)
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


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
