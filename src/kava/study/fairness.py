"""Check that all arms of a study had the same budget: data, order of samples and steps.

A difference in accuracy is evidence about the arms only if nothing else differed. A study whose
arms consumed different budgets therefore fails with the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kava.study.plan import Plan

MAX_TOKEN_DIFFERENCE = 0.01

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""Results of finished runs, by arm and seed."""

_EQUAL = {
    "optimizer_steps": "optimiser steps",
    "samples": "samples",
    "data_order_hash": "order of the data",
    "data_hash": "data",
    "test_hash": "test",
}


def unfair_differences(plan: Plan, results: Results) -> list[str]:
    """Differences in budget between each arm and the baseline, per seed; references are exempt.

    Args:
        plan: the study's plan.
        results: results of finished runs; a run is skipped if the baseline's of its seed is
            unfinished.

    Returns:
        One line per difference; none if the comparison is fair.

    Example:
        >>> unfair_differences(plan, results)
        ['treatment, seed 0: optimiser steps 1,200, those of flat 1,500']
    """
    baseline = plan.baseline.name
    lines = []
    for arm in plan.compared:
        for seed in plan.seeds:
            own, theirs = results.get((arm.name, seed)), results.get((baseline, seed))
            if own is not None and theirs is not None:
                where = f"{arm.name}, seed {seed}"
                lines += [
                    f"{where}: {difference} of {baseline}"
                    for difference in _differences(own["budget"], theirs["budget"])
                ]
    return lines


def seeds_apart(plan: Plan, results: Results) -> list[str]:
    """The compared arms that lack a finished run of a seed that the baseline has, or the reverse.

    An arm that is planned for the first seeds alone is held against the baseline's runs of those.
    """
    lines = []
    for arm in plan.compared:
        seeds = plan.seeds_of(arm)
        own, theirs = (
            [seed for seed in seeds if (name, seed) in results]
            for name in (arm.name, plan.baseline.name)
        )
        if own != theirs:
            lines.append(
                f"{arm.name}: seeds {_listed(own)}, those of {plan.baseline.name} are "
                f"{_listed(theirs)}"
            )
    return lines


def _differences(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    found = []
    for key, words in _EQUAL.items():
        if own[key] != theirs[key]:
            found.append(f"{words} {_shown(own[key])}, not the {_shown(theirs[key])}")
    apart = abs(own["tokens"] - theirs["tokens"]) / max(theirs["tokens"], 1)
    if apart > MAX_TOKEN_DIFFERENCE:
        found.append(f"tokens {own['tokens']:,}, {100 * apart:.1f} % from the {theirs['tokens']:,}")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value!s:.12}…"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
