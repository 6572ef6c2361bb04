"""The examples of the docstrings and of the page run."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from ragged import make_batch

from kava.eviction import EVICTIONS, build_eviction, compress
from kava.trace import KVTrace

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
MODULES = ["kava.eviction.base", "kava.eviction.redundancy"]


@pytest.mark.parametrize("name", [*MODULES, *(f"kava.eviction.{name}" for name in EVICTIONS)])
def test_the_examples_run(name: str) -> None:
    trace, _ = make_batch()
    names = {
        "torch": torch,
        "KVTrace": KVTrace,
        "compress": compress,
        "build_eviction": build_eviction,
        "trace": trace,
        "batch": {"ids": ["a", "b", "c", "d", "e"]},
        "index_B3": torch.tensor([[5, 6, 7]] * 5),
        "scores_BT": torch.randn(trace.batch_size, trace.length),
    }
    result = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_examples_of_the_page_run() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_page_has_every_method_with_every_option() -> None:
    rows = {line.split("`")[1]: line for line in PAGE.read_text().splitlines() if "| `" in line[:4]}
    assert set(rows) == set(EVICTIONS)
    for name, eviction in EVICTIONS.items():
        for option in {field.name for field in fields(eviction)} - {"scope"}:
            assert f"`{option}`" in rows[name]
