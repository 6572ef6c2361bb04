"""What the numbers of the main demo and of the eviction study amount to.

Every sentence here is put together from the numbers; none is known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kava.data.shell_game import CHANCE
from kava.demo.results import (
    CHANCE_MARGIN,
    Expectation,
    Result,
    Summary,
    expect,
    listed,
    near_chance,
    single_seeds,
    with_seeds,
)
from kava.format import at_least, at_most, percent
from kava.statistics.intervals import wilson

KV_GOAL = 0.95
WRITTEN_GOAL = 0.99
ORACLE_MARGIN = 0.05


def main_expectations(summaries: Sequence[Summary]) -> list[Expectation]:
    """The three things that the main demo is to show; every run of an arm counts, not its mean."""
    kv = [r for s in summaries if s.arm.role == "treatment" for r in s.results]
    answer = [r for s in summaries if s.arm.name in ("ce", "text_ce", "codi") for r in s.results]
    written = [r for s in summaries if s.arm.name == "written" for r in s.results]
    return [
        expect(
            f"every run that matches the KV cache is right at least {100 * KV_GOAL:.0f} % of "
            f"the time",
            kv,
            all(r.accuracy >= KV_GOAL for r in kv),
        ),
        expect(
            f"answer only (ce), reading trained (text_ce) and hidden state only (codi) stay within "
            f"{100 * CHANCE_MARGIN:.0f} points of chance ({percent(CHANCE)})",
            answer,
            all(near_chance(r.accuracy) for r in answer),
        ),
        expect(
            f"written reasoning is right at least {100 * WRITTEN_GOAL:.0f} % of the time",
            written,
            all(r.accuracy >= WRITTEN_GOAL for r in written),
        ),
    ]


def main_verdict(summaries: Sequence[Summary]) -> str:
    """What the main demo's numbers say, in a few sentences."""
    kv = [r for s in summaries if s.arm.role == "treatment" for r in s.results]
    other = [r for s in summaries if s.arm.role in ("baseline", "control") for r in s.results]
    if not kv or not other:
        return f"Too few arms were run to compare: {listed([*kv, *other]) or 'none'}."
    beyond = [r for r in other if not near_chance(r.accuracy)]
    parts = [_with_cache(kv, alone=not beyond)]
    if beyond:
        parts.append(
            f"Without it, {listed(beyond)} {'is' if len(beyond) == 1 else 'are'} more than "
            f"{100 * CHANCE_MARGIN:.0f} points away from a guess ({percent(CHANCE)})."
        )
    else:
        none = (
            f"none of the {len(other)} runs gets" if len(other) > 1 else "the one run does not get"
        )
        parts.append(
            f"Without it {none} beyond {at_most(max(r.accuracy for r in other))}, where a guess is "
            f"right {percent(CHANCE)} of the time."
        )
    return " ".join(filter(None, [*parts, single_seeds(summaries)]))


def _with_cache(kv: Sequence[Result], alone: bool) -> str:
    """How the runs with the cache came out; what it did, only where nothing else did it too."""
    reached = [r for r in kv if r.accuracy >= KV_GOAL]
    goal = f"right at least {100 * KV_GOAL:.0f} % of the time"
    if not reached:
        return (
            f"Matching the teacher's KV cache did not make the student {goal} in any run "
            f"({listed(kv)})."
        )
    made = "Matching the teacher's KV cache made the student reason in latent tokens"
    if len(reached) < len(kv):
        count = f"{len(reached)} of {len(kv)} runs"
        return (
            f"{made} in {count} ({listed(kv)})."
            if alone
            else f"With the teacher's KV cache, {count} are {goal} ({listed(kv)})."
        )
    worst = min(r.accuracy for r in kv)
    right = "every time" if worst == 1 else f"at least {at_least(worst)} of the time"
    runs = f"each of the {len(kv)} runs with it" if len(kv) > 1 else "the one run with it"
    if alone:
        return f"{made}: {runs} is right {right}."
    return f"{runs[0].upper()}{runs[1:]} (the teacher's KV cache) is right {right}."


def eviction_expectations(summaries: Sequence[Summary]) -> list[Expectation]:
    """What a rule that asks the teacher itself is to show."""
    by_name = {s.arm.name: s for s in summaries}
    knockout, oracle = by_name.get("knockout"), by_name.get("positions")
    both = [] if knockout is None or oracle is None else [oracle, knockout]
    return [
        expect(
            f"knockout comes within {100 * ORACLE_MARGIN:.0f} points of the oracle",
            [result for summary in both for result in summary.results],
            bool(both) and both[1].accuracy >= both[0].accuracy - ORACLE_MARGIN,
        )
    ]


def eviction_verdict(summaries: Sequence[Summary]) -> str:
    """What the eviction study's numbers say."""
    by_name = {s.arm.name: s for s in summaries}
    oracle = by_name.get("positions")
    rules = [s for s in summaries if s.arm.name != "positions"]
    count = f"the {len(rules)} rules that have" if len(rules) > 1 else "the one rule that has"
    parts = []
    if oracle is not None:
        parts.append(
            f"Latents matched with the tokens that carry the chain are right "
            f"{percent(oracle.accuracy)} of the time ({listed(oracle.results)})."
        )
    if rules:
        above = [s for s in rules if all(_above_chance(r) for r in s.results)]
        best = max(rules, key=lambda s: s.accuracy)
        if above:
            names = ", ".join(f"{s.arm.name} ({percent(s.accuracy)})" for s in above)
            parts.append(
                f"Of {count} to choose, with {with_seeds(above)} above a guess "
                f"({percent(CHANCE)}): {names}."
            )
        else:
            parts.append(
                f"Of {count} to choose, none does better than a guess ({percent(CHANCE)}) with "
                f"{with_seeds(rules)}; the best, {best.arm.name}, is right "
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
            f"{'differ' if apart else 'do not differ'} by more than their intervals over questions."
        )
    return " ".join(filter(None, [*parts, single_seeds(summaries)]))


def reference_sentence(teacher: Mapping[str, float], summaries: Sequence[Summary]) -> str:
    """How the teacher does when it writes the long form, beside the students' cost."""
    fewest, most = (f(round(s.forward_passes) for s in summaries) for f in (min, max))
    passes = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return (
        f"The teacher, writing all of it, is right {percent(teacher['accuracy'])} of the time in "
        f"{teacher['forward_passes']:.0f} forward passes per answer; the students take "
        f"{passes}."
    )


def _above_chance(result: Result) -> bool:
    return wilson(round(result.accuracy * result.num_items), result.num_items).low > CHANCE
