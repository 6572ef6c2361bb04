"""The examples of the docstrings and of the page on data run as they are written."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from kava import data

DOCS = Path(__file__).parents[2] / "docs"
MODULES = ["segments", *(f"data.{name}" for name in (
    "builtin", "collate", "encode", "leakage", "oracle", "records", "shell_game", "sources",
    "splits", "word_phrases", "word_problems", "word_tokenizer",
))]  # fmt: skip


def material(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """The names that the examples take for granted."""
    records = [
        data.Record(id=str(i), question=f"How many, {i}?", reasoning="One.\nAll.", answer=str(i))
        for i in range(20)
    ]
    template = data.Template()
    return {
        "records": records,
        "train": records[:15],
        "test": records[15:],
        "tokenizer": tokenizer,
        "encoded": data.encode_records(records, tokenizer, template, 64)[0],
        "texts": [template.render(record).text for record in records],
        "torch": torch,
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str, bpe: PreTrainedTokenizerBase) -> None:
    module = importlib.import_module(f"kava.{name}")
    failures, count = doctest.testmod(module, extraglobs=material(bpe))
    assert (failures, count > 0) == (0, True)


@pytest.mark.parametrize(
    ("page", "fewest"), [("data.md", 6), ("leaks.md", 7), ("word_problems.md", 5)]
)
def test_the_examples_of_a_page_run(page: str, fewest: int) -> None:
    failures, count = doctest.testfile(str(DOCS / page), module_relative=False)
    assert (failures, count >= fewest) == (0, True)
