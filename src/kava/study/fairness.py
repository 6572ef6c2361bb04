"""Whether the arms of a study had the same chances: the same data, in the same order, as long.

A difference in accuracy says something of the arms only where nothing else differed. So a study
whose arms consumed different budgets fails, and says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kava.study.plan import Plan

MAX_TOKEN_DIFFERENCE = 0.01

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""What finished runs gave, by arm and seed."""

_EQUAL = {
    "optimizer_steps": "optimiser steps",
    "samples": "samples",
    "data_order_hash": "order of the data",
    "data_hash": "data",
    "test_hash": "test",
}


def unfair_differences(plan: Plan, results: Results) -> list[str]:
    """Where the budget of an arm is not the baseline's, seed by seed; references are exempt.

    Args:
        plan: of the study.
        results: of its finished runs; one whose baseline is not finished is not held to it.

    Returns:
        One line for each difference; none where the comparison is fair.

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
    """The arms of a verdict that have not finished the same seeds as the baseline."""
    done = {
        arm.name: [seed for seed in plan.seeds if (arm.name, seed) in results]
        for arm in (plan.baseline, *plan.compared)
    }
    expected = done[plan.baseline.name]
    return [
        f"{name}: seeds {_listed(seeds)}, those of {plan.baseline.name} are {_listed(expected)}"
        for name, seeds in done.items()
        if seeds != expected
    ]


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
