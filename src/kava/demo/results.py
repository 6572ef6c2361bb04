"""What the runs gave: one result per run, intervals per arm, and what they amount to.

Every sentence here is put together from the numbers; none is known beforehand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kava.data.shell_game import CHANCE
from kava.demo.arms import Arm
from kava.evaluate.intervals import wilson

KV_GOAL = 0.95
WRITTEN_GOAL = 0.99
CHANCE_MARGIN = 0.10


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run gave.

    Attributes:
        arm: the arm's name.
        seed: the run's seed.
        accuracy: share of right answers, 0 to 1.
        num_items: questions answered.
        train_seconds: wall time of the training steps, evaluations left out.
    """

    arm: str
    seed: int
    accuracy: float
    num_items: int
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Result(Outcome):
    """What one run gave, and what an answer of its student costs.

    Attributes:
        forward_passes: of the model per answer, one question at a time.
        seconds_per_answer: wall time, one question at a time on one thread.
    """

    forward_passes: float
    seconds_per_answer: float


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
        return 1000 * _mean([result.seconds_per_answer for result in self.results])

    @property
    def train_seconds(self) -> float:
        """Mean over seeds."""
        return _mean([result.train_seconds for result in self.results])


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
)  # fmt: skip
"""The keys of a run in results.json."""


def save_results(path: Path, results: Sequence[Result]) -> None:
    """Write results as a JSON list."""
    rows = [asdict(result) for result in results]
    save_json(path, [{key: row[key] for key in RESULT_KEYS} for row in rows])


def save_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the file is whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


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
            low, high = wilson(round(accuracy * num_items), num_items)
            summaries.append(Summary(arm=arm, results=own, accuracy=accuracy, low=low, high=high))
    return summaries


def percent(share: float) -> str:
    """A share as text.

    Example:
        >>> percent(0.0417)
        '4.2 %'
    """
    return f"{100 * share:.1f} %"


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


def main_expectations(summaries: Sequence[Summary]) -> list[Expectation]:
    """The three things that the main demo is to show; every run of an arm counts, not its mean."""
    kv = [r for s in summaries if s.arm.group == "kv" for r in s.results]
    answer = [r for s in summaries if s.arm.name in ("ce", "codi") for r in s.results]
    written = [r for s in summaries if s.arm.name == "written" for r in s.results]
    return [
        _expect(
            f"every run that matches the KV cache is right at least {100 * KV_GOAL:.0f} % of "
            f"the time",
            kv,
            all(r.accuracy >= KV_GOAL for r in kv),
        ),
        _expect(
            f"answer only (ce) and hidden state only (codi) stay within "
            f"{100 * CHANCE_MARGIN:.0f} points of chance ({percent(CHANCE)})",
            answer,
            all(near_chance(r.accuracy) for r in answer),
        ),
        _expect(
            f"written reasoning is right at least {100 * WRITTEN_GOAL:.0f} % of the time",
            written,
            all(r.accuracy >= WRITTEN_GOAL for r in written),
        ),
    ]


def near_chance(accuracy: float) -> bool:
    """Within 10 points of a guess."""
    return abs(accuracy - CHANCE) <= CHANCE_MARGIN


def main_verdict(summaries: Sequence[Summary]) -> str:
    """What the main demo's numbers say, in one or two sentences."""
    kv = [r for s in summaries if s.arm.group == "kv" for r in s.results]
    other = [r for s in summaries if s.arm.group == "without" for r in s.results]
    if not kv or not other:
        return f"Too few arms were run to compare: {listed([*kv, *other]) or 'none'}."
    reached = [r for r in kv if r.accuracy >= KV_GOAL]
    beyond = [r for r in other if not near_chance(r.accuracy)]
    worst = min(r.accuracy for r in kv)
    right = "every time" if worst == 1 else f"at least {percent(worst)} of the time"
    if len(reached) == len(kv):
        first = (
            f"Matching the teacher's KV cache made the student reason in latent tokens: "
            f"each of the {len(kv)} runs with it is right {right}"
        )
    elif reached:
        first = (
            f"Matching the teacher's KV cache made the student reason in latent tokens in "
            f"{len(reached)} of {len(kv)} runs ({listed(kv)})"
        )
    else:
        first = (
            f"Matching the teacher's KV cache did not make the student reason in latent tokens: "
            f"no run with it is right {100 * KV_GOAL:.0f} % of the time ({listed(kv)})"
        )
    highest = percent(max(r.accuracy for r in other))
    if not beyond:
        runs = (
            f"none of the {len(other)} runs gets" if len(other) > 1 else "the one run does not get"
        )
        return (
            f"{first}. Without it {runs} beyond {highest}, where a guess is right "
            f"{percent(CHANCE)} of the time."
        )
    return (
        f"{first}. Without it, {listed(beyond)} {'is' if len(beyond) == 1 else 'are'} more than "
        f"{100 * CHANCE_MARGIN:.0f} points away from a guess ({percent(CHANCE)})."
    )


def eviction_verdict(summaries: Sequence[Summary]) -> str:
    """What the eviction study's numbers say."""
    by_name = {s.arm.name: s for s in summaries}
    oracle = by_name.get("positions")
    rules = [s for s in summaries if s.arm.name != "positions"]
    parts = []
    if oracle is not None:
        parts.append(
            f"Latents matched with the three tokens that carry the chain are right "
            f"{percent(oracle.accuracy)} of the time ({listed(oracle.results)})."
        )
    if rules:
        above = [s for s in rules if all(_above_chance(r) for r in s.results)]
        best = max(rules, key=lambda s: s.accuracy)
        if above:
            names = ", ".join(f"{s.arm.name} ({percent(s.accuracy)})" for s in above)
            parts.append(
                f"Of the {len(rules)} rules that have to choose, with every seed above a guess "
                f"({percent(CHANCE)}): {names}."
            )
        else:
            parts.append(
                f"None of the {len(rules)} rules that have to choose does better than a guess "
                f"({percent(CHANCE)}) with every seed; the best, {best.arm.name}, is right "
                f"{percent(best.accuracy)} of the time."
            )
    scored = [by_name[name] for name in ("rkv", "rkv_official") if name in by_name]
    blind = [by_name[name] for name in ("random", "uniform") if name in by_name]
    if scored and blind:
        top, bar = max(scored, key=lambda s: s.accuracy), max(blind, key=lambda s: s.accuracy)
        apart = top.low > bar.high or bar.low > top.high
        parts.append(
            f"The better of the R-KV scores ({top.arm.name}, {percent(top.accuracy)}) and the "
            f"better of random and uniform ({bar.arm.name}, {percent(bar.accuracy)}) "
            f"{'differ' if apart else 'do not differ'} by more than their intervals."
        )
    return " ".join(parts)


def reference_sentence(teacher: Mapping[str, float], summaries: Sequence[Summary]) -> str:
    """How the teacher does when it writes the long form, beside the students' cost."""
    passes = max(s.forward_passes for s in summaries)
    return (
        f"The teacher, writing all of it, is right {percent(teacher['accuracy'])} of the time in "
        f"{teacher['forward_passes']:.0f} forward passes per answer; the students take "
        f"{passes:.0f}."
    )


def _above_chance(result: Result) -> bool:
    return wilson(round(result.accuracy * result.num_items), result.num_items).low > CHANCE


def _expect(text: str, results: Sequence[Result], met: bool) -> Expectation:
    return Expectation(text, met if results else None, listed(results))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
