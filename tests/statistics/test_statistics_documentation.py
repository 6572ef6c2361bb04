"""The examples in docstrings run, and the page's example of power is true."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from kava.statistics import power_before, seeds_needed

EXAMPLES = (
    "bootstrap",
    "curves",
    "items",
    "learned",
    "paired",
    "power",
    "seeds",
    "several",
    "shares",
    "simulate",
    "steps",
    "verdict",
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_docstrings_run(name: str) -> None:
    found = doctest.testmod(import_module(f"kava.statistics.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_page_says_what_power_is() -> None:
    page = (Path(__file__).parents[2] / "docs/statistics.md").read_text(encoding="utf-8")
    power = power_before(effect=0.1, num_seeds=5, num_items=1000, seed_std=0.05)
    assert f"# {power:.2f}\n" in page
    assert f"# {seeds_needed(effect=0.1, num_items=1000, seed_std=0.05)}\n" in page
