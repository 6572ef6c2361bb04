"""What the numbers of the heterogeneous studies amount to.

Every sentence here is put together from the numbers; none is known beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from kava.demo.verdicts import KV_GOAL
from kava.format import percent

STRUCTURED = ("per_head", "rank_8")
"""The arms that are to show that a calibrated structured map is enough."""

CONTROLS = ("ce", "wrong_sample")
"""The arms that are to show that nothing else teaches the student."""

APART = 1.5
"""From this ratio on, the loss on another sample's cache is called apart from the loss on its own:
trials of maps that teach ended near 2, of maps that collapse near 1."""


def hetero_verdict(summaries: Sequence[Summary]) -> str:
    """What the numbers say of the maps: those that are to do it, the controls, all the others."""
    structured = [s for s in summaries if s.arm.name in STRUCTURED]
    controls = [s for s in summaries if s.arm.name in CONTROLS]
    others = [s for s in summaries if s.arm.name not in (*STRUCTURED, *CONTROLS)]
    runs = [result for s in controls for result in s.results]
    beyond = [result for result in runs if not near_chance(result.accuracy)]
    parts = []
    if structured:
        reached = [s for s in structured if s.reaches(KV_GOAL)]
        missed = [s for s in structured if s not in reached]
        goal = f"right at least {100 * KV_GOAL:.0f} % of the time with"
        if reached:
            said = f"{goal} {with_seeds(reached)} {_is(reached)} {_told(reached)}."
            parts.append(
                f"{said[0].upper()}{said[1:]}"
                if beyond
                else f"A calibrated structured map brings the teacher's cache to a student of "
                f"another geometry and tokenizer: {said}"
            )
        if missed:
            parts.append(f"Not {goal} {with_seeds(missed)} {_is(missed)} {_told(missed)}.")
    if controls:
        away = f"{100 * CHANCE_MARGIN:.0f} points of a guess ({percent(CHANCE)})"
        parts.append(
            f"Of the controls, {listed(beyond)} {'is' if len(beyond) == 1 else 'are'} not within "
            f"{away}, so that the teacher's cache is not all that teaches here."
            if beyond
            else f"The controls stay within {away}: {listed(runs)}."
        )
    if others:
        parts.append(f"Under the same budget: {_told(others)}.")
    return " ".join(filter(None, [*parts, single_seeds(summaries)]))


def hetero_expectations(summaries: Sequence[Summary]) -> list[Expectation]:
    """What the heterogeneous pair is to show; every run counts, not its arm's mean."""
    structured = [s for s in summaries if s.arm.name in STRUCTURED]
    controls = [r for s in summaries if s.arm.name in CONTROLS for r in s.results]
    return [
        expect(
            f"a calibrated structured map ({' or '.join(STRUCTURED)}) makes the student right at "
            f"least {100 * KV_GOAL:.0f} % of the time with every seed",
            [result for s in structured for result in s.results],
            any(s.reaches(KV_GOAL) for s in structured),
        ),
        expect(
            f"answer only (ce) and another sample's cache (wrong_sample) stay within "
            f"{100 * CHANCE_MARGIN:.0f} points of chance ({percent(CHANCE)})",
            controls,
            all(near_chance(r.accuracy) for r in controls),
        ),
    ]


def rank_of(summary: Summary) -> int | None:
    """The number of terms of an arm's map; None where it is no sum of terms."""
    rank = summary.arm.changes.get("map_rank")
    return None if rank is None else int(rank)


def rank_verdict(summaries: Sequence[Summary]) -> str:
    """From how many terms on a map does as well as the full one, and what more terms explain."""
    ranks = sorted(
        ((rank, s) for s in summaries if (rank := rank_of(s)) is not None), key=lambda pair: pair[0]
    )
    full = next((s for s in summaries if s.arm.name == "full"), None)
    if not ranks or full is None:
        return f"Too few arms were run to compare: {_told(summaries)}."
    parts = [_enough(ranks, full)]
    known = [(rank, s.r_squared) for rank, s in ranks if s.r_squared is not None]
    if known and full.r_squared is not None:
        steps = ", ".join(f"{value:.2f}" for _, value in known)
        at = ", ".join(str(rank) for rank, _ in known)
        parts.append(
            f"Of held-out keys and values, {at} terms explain {steps} (mean R²), the full map "
            f"{full.r_squared:.2f}."
        )
    return " ".join(filter(None, [*parts, single_seeds(summaries)]))


def _enough(ranks: Sequence[tuple[int, Summary]], full: Summary) -> str:
    """From how many terms on a map does as well as the full one, where that one teaches."""
    against = f"of the full map, {_told([full])}"
    if all(near_chance(result.accuracy) for result in full.results):
        return (
            f"The full map stays within {100 * CHANCE_MARGIN:.0f} points of a guess, "
            f"{_told([full])}, so that nothing can be said of the number of terms."
        )
    reaching = [s.high >= full.accuracy for _, s in ranks]
    first = next((i for i in range(len(ranks)) if all(reaching[i:])), None)
    if first is None:
        rank, last = ranks[-1]
        within = [s for (_, s), reaches in zip(ranks, reaching) if reaches]
        though = f"; of fewer, {_told(within)} {_does(within)}" if within else ", nor do fewer"
        return (
            f"With {_terms(rank)}, the most, a map does not come within its interval {against}: "
            f"{_told([last])}{though}."
        )
    rank, least = ranks[first]
    beyond = " and all beyond" if first + 1 < len(ranks) else ""
    below = f"; {_told([ranks[first - 1][1]])} does not" if first else ""
    intervals = "come within their intervals" if beyond else "comes within its interval"
    return f"From {_terms(rank)} on: {_told([least])}{beyond} {intervals} {against}{below}."


def joint_verdict(summaries: Sequence[Summary]) -> str:
    """Which maps collapse when they learn beside the student, and whether the control tells."""
    by_name = {s.arm.name: s for s in summaries}
    parts = []
    for title, prefix in (("Teacher mapped", ""), ("Student mapped", "back_")):
        names = ("calibrated", "joint", "calibrated_joint", "joint_wrong")
        frozen, joint, fitted, wrong = (by_name.get(prefix + name) for name in names)
        found = [_frozen(frozen)] if frozen is not None else []
        found += [_learned(s, frozen) for s in (joint, fitted) if s is not None]
        if joint is not None and wrong is not None:
            found.append(_control(joint, wrong))
        if found:
            parts.append(f"{title}: {'; '.join(found)}.")
    return " ".join(filter(None, [*parts, single_seeds(summaries)]))


def collapsed(result: Result, frozen: Summary | None) -> bool:
    """Whether a run matches better than a fitted, frozen map does, and knows no more than chance.

    Without the frozen map to compare it with, nothing is called collapsed.
    """
    return (
        near_chance(result.accuracy)
        and result.kv is not None
        and frozen is not None
        and frozen.kv is not None
        and result.kv < frozen.kv
    )


def _frozen(frozen: Summary) -> str:
    return f"fitted and frozen ({frozen.arm.name}), {listed(frozen.results)}, {_loss(frozen)}"


def _learned(summary: Summary, frozen: Summary | None) -> str:
    """What became of a map that learned beside the student."""
    name, num = summary.arm.name, len(summary.results)
    fallen = [r for r in summary.results if collapsed(r, frozen)]
    at_chance = [r for r in summary.results if near_chance(r.accuracy)]
    seen = f"{listed(summary.results)}, {_loss(summary)}"
    if fallen:
        return f"{name} collapses in {_runs(len(fallen), num)} ({seen})"
    if at_chance:
        return f"{name} stays at chance in {_runs(len(at_chance), num)} ({seen})"
    return f"{name} does not collapse ({seen})"


def _runs(count: int, total: int) -> str:
    return f"{count} of {total} runs" if total > 1 else "its one run"


def _control(joint: Summary, wrong: Summary) -> str:
    """Whether a map that learns on other samples' caches ends with the same loss."""
    if joint.kv is None or wrong.kv is None:
        return f"{wrong.arm.name} has no KV loss to compare"
    apart = wrong.kv > 0 and wrong.kv >= APART * joint.kv
    return (
        f"on other samples' caches ({listed(wrong.results)}) its loss ends at {wrong.kv:.3g}, "
        f"{'apart' if apart else 'not apart'} from {joint.kv:.3g}"
    )


def _loss(summary: Summary) -> str:
    return "no KV loss" if summary.kv is None else f"KV loss {summary.kv:.3g}"


def _terms(rank: int) -> str:
    return "one term" if rank == 1 else f"{rank} terms"


def _does(summaries: Sequence[Summary]) -> str:
    return "does" if len(summaries) == 1 else "do"


def _is(summaries: Sequence[Summary]) -> str:
    return "is" if len(summaries) == 1 else "are"


def _told(summaries: Sequence[Summary]) -> str:
    """Arms with the size of their maps and the accuracy of every seed."""
    return "; ".join(
        f"{s.arm.name} ({s.aligner_parameters:,} parameters) "
        f"{', '.join(percent(r.accuracy) for r in s.results)}"
        for s in summaries
    )
