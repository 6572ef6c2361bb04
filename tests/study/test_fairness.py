"""Equal budgets: what counts as a difference, and what does not."""

from typing import Any

import pytest

from kava.study.fairness import unfair_differences
from kava.study.plan_file import read_plan
from study.test_plan import GOOD, changed

BUDGET = {
    "optimizer_steps": 4,
    "samples": 32,
    "tokens": 1000,
    "data_order_hash": "a" * 64,
    "data_hash": "b" * 64,
    "test_hash": "c" * 64,
}


def results(**changes: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Equal budgets everywhere, but for the structured arm's first seed."""
    found = {(arm, seed): {"budget": dict(BUDGET)} for arm in GOOD["arms"] for seed in (0, 1)}
    found["structured", 0]["budget"].update(changes)
    return found


def test_equal_budgets_are_fair() -> None:
    assert unfair_differences(read_plan(GOOD), results()) == []
    assert unfair_differences(read_plan(GOOD), results(tokens=1010)) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"optimizer_steps": 3}, "optimiser steps 3, not the 4 of flat"),
        ({"samples": 31}, "samples 31, not the 32 of flat"),
        ({"tokens": 1011}, "tokens 1,011, 1.1 % from the 1,000 of flat"),
        ({"data_order_hash": "d" * 64}, "order of the data dddddddddddd…, not the aaaaaaaaaaaa…"),
        ({"data_hash": "d" * 64}, "data dddddddddddd…, not the bbbbbbbbbbbb… of flat"),
        ({"test_hash": "d" * 64}, "test dddddddddddd…, not the cccccccccccc… of flat"),
    ],
)
def test_every_difference_is_one_line(changes: dict[str, Any], line: str) -> None:
    (found,) = unfair_differences(read_plan(GOOD), results(**changes))
    assert found.startswith("structured, seed 0: ")
    assert line in found


def test_a_reference_is_exempt_and_a_missing_run_is_no_difference() -> None:
    plan = read_plan(changed(arms__structured__role="reference"))
    assert unfair_differences(plan, results(tokens=1)) == []
    found = results(tokens=1)
    del found["flat", 0]
    assert unfair_differences(read_plan(GOOD), found) == []
