"""What the demo's verdicts say is true of the numbers, whatever these are."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from claims import check_words, quoted
from demo.conftest import MakeResults
from kava.demo.arms import EVICTION, MAIN, Demo
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.hetero_verdicts import hetero_verdict, joint_verdict, rank_verdict
from kava.demo.results import Summary, near_chance, summarize
from kava.demo.verdicts import eviction_verdict, main_verdict, reference_sentence

VERDICTS: dict[str, tuple[Demo, Callable[[Sequence[Summary]], str]]] = {
    "main": (MAIN, main_verdict),
    "eviction": (EVICTION, eviction_verdict),
    "maps": (HETERO, hetero_verdict),
    "rank": (RANK, rank_verdict),
    "joint": (JOINT, joint_verdict),
}
ENDS = (0.0, 0.02, 0.041, 0.1, 0.5, 0.93, 0.949, 0.9496, 0.95, 0.998, 0.9996, 1.0)


def situations(demo: Demo, make_results: MakeResults) -> Iterator[list[Summary]]:
    """A hundred and fifty outcomes: some arms, one to four seeds, chance, partly, always right."""
    draw = random.Random(demo.name)
    for number in range(150):
        arms = [arm.name for arm in demo.arms if number % 3 or draw.random() < 0.6]
        num_seeds = 1 + number % 4
        found: dict[str, list[float]] = {}
        measured: dict[str, dict[str, Any]] = {}
        for arm in arms:
            few = draw.choice((num_seeds, 1)) if number % 2 else num_seeds
            usual = draw.choice(ENDS)
            found[arm] = [draw.choice((usual, draw.choice(ENDS))) for _ in range(few)]
            if number % 5 == 0:
                found[arm] = [0.0 if number % 2 else 1.0] * few
            measured[arm] = {"r_squared": draw.choice((None, 0.3, 0.6))}
            measured[arm]["kv"] = draw.choice((None, 0.0, 0.01, 0.2))
        yield summarize(demo.arms, make_results(found, num_items=5000, measured=measured))


@pytest.mark.parametrize("kind", VERDICTS)
def test_words_are_whole_and_single_seeds_are_called_so(
    kind: str, make_results: MakeResults
) -> None:
    demo, verdict = VERDICTS[kind]
    for summaries in situations(demo, make_results):
        said = verdict(summaries)
        check_words(said)
        if not said or said.startswith("Too few"):
            continue
        single = [s.arm.name for s in summaries if len(s.results) == 1]
        if len(single) == len(summaries):
            assert said.endswith("All of it is of a single seed, and says nothing of other runs.")
            assert "every seed" not in said
        elif single:
            assert said.endswith(f"says nothing of other runs: {', '.join(single)}.")
        else:
            assert "a single seed" not in said


def test_the_main_verdict_is_true(make_results: MakeResults) -> None:
    seen: set[str] = set()
    for summaries in situations(MAIN, make_results):
        said = main_verdict(summaries)
        kv = [r.accuracy for s in summaries if s.arm.role == "treatment" for r in s.results]
        other = [
            r.accuracy
            for s in summaries
            if s.arm.role in ("baseline", "control")
            for r in s.results
        ]
        if said.startswith("Too few"):
            assert not kv or not other
            continue
        reached = [accuracy for accuracy in kv if accuracy >= 0.95]
        if "every time" in said:
            assert min(kv) == 1
        for share in quoted(said, "is right at least"):
            assert min(kv) >= share - 1e-12
        for share in quoted(said, "beyond"):
            assert max(other) <= share + 1e-12
        if "made the student reason" in said:
            assert reached
            assert all(map(near_chance, other))
        for count, total in re.findall(r"in (\d+) of (\d+) runs", said):
            assert (int(count), int(total)) == (len(reached), len(kv))
        assert ("did not make" in said) == (not reached)
        seen |= {word for word in ("beyond", "made", "did not") if word in said}
    assert seen == {"beyond", "made", "did not"}  # every branch was met


def test_the_eviction_verdict_is_true(make_results: MakeResults) -> None:
    for summaries in situations(EVICTION, make_results):
        said = eviction_verdict(summaries)
        rules = [s for s in summaries if s.arm.name != "positions"]
        for named in re.findall(r"above a guess \(4\.2 %\): ([^.]*(?:\.\d[^.]*)*)\.", said):
            for name in re.findall(r"(\w+) \(", named):
                (summary,) = (s for s in rules if s.arm.name == name)
                assert all(r.accuracy > 0.0417 for r in summary.results)
        if "none does better than a guess" in said:
            assert not any(all(r.accuracy > 0.1 for r in s.results) for s in rules)


def test_the_verdict_of_maps_is_true(make_results: MakeResults) -> None:
    for summaries in situations(HETERO, make_results):
        said = hetero_verdict(summaries)
        structured = [s for s in summaries if s.arm.name in ("per_head", "rank_8")]
        controls = [s for s in summaries if s.arm.name in ("ce", "wrong_sample")]
        held = all(near_chance(r.accuracy) for s in controls for r in s.results)
        reached = any(s.reaches(0.95) for s in structured)
        assert ("brings the teacher's cache" in said) == (reached and held)
        if "The controls stay" in said:
            assert held
        if "with every seed" in said.split("Not right")[0]:
            assert reached


def test_the_verdict_of_ranks_is_true(make_results: MakeResults) -> None:
    for summaries in situations(RANK, make_results):
        said = rank_verdict(summaries)
        by_rank = {s.arm.name: s for s in summaries}
        full = by_rank.pop("full", None)
        if said.startswith("Too few"):
            continue
        assert full is not None
        if all(near_chance(r.accuracy) for r in full.results):
            assert "nothing can be said of the number of terms" in said
            continue
        within = [s.high >= full.accuracy for s in by_rank.values()]
        assert said.startswith("From") == within[-1]
        if "nor do fewer" in said:
            assert not any(within)
        if "and all beyond" in said:
            assert all(within[-2:])


def test_the_verdict_of_maps_that_learn_is_true(make_results: MakeResults) -> None:
    for summaries in situations(JOINT, make_results):
        said = joint_verdict(summaries)
        by_name = {s.arm.name: s for s in summaries}
        for name, count, total in re.findall(
            r"(\w+) (?:collapses|stays at chance) in (\d+) of (\d+)", said
        ):
            results = by_name[name].results
            assert int(total) == len(results)
            assert 1 <= int(count) <= sum(near_chance(r.accuracy) for r in results)
        for name in re.findall(r"(\w+) does not collapse", said):
            assert not any(near_chance(r.accuracy) for r in by_name[name].results)
        for prefix in ("", "back_"):
            joint, wrong = by_name.get(f"{prefix}joint"), by_name.get(f"{prefix}joint_wrong")
            if joint and wrong and joint.kv == wrong.kv is not None:
                assert f"its loss ends at {wrong.kv:.3g}, not apart from {joint.kv:.3g}" in said


@pytest.mark.parametrize(
    ("passes", "words"), [([6.0, 6.0], "take 6."), ([3.0, 6.4], "take 3 to 6.")]
)
def test_the_students_cost_is_that_of_all(
    make_results: MakeResults, passes: list[float], words: str
) -> None:
    results = make_results({"rkv": [0.04], "random": [0.04]})
    results = [replace(r, forward_passes=cost) for r, cost in zip(results, passes)]
    teacher = {"accuracy": 1.0, "num_items": 200, "forward_passes": 18.0}
    assert reference_sentence(teacher, summarize(EVICTION.arms, results)).endswith(words)
