"""Small stores for the tests, and runs that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kava.extract.request import ExtractConfig, Request
from kava.extract.run import extract
from kava.ranks import ALONE, Ranks
from kava.store.manifest import Manifest, read_manifest
from kava.train.build import build_run
from train.runs import SMALL, all_rows, run, small

TEACHER = "kava/shell-teacher"
SMALL_STORE: dict[str, Any] = {
    "teacher_name": TEACHER,
    "text_ce_weight": 0.0,
    "max_steps": 2,
    "batch_size": 4,
    "dataset_name": "kava/shell-game?num_train=64",
}
"""Settings of a small run with a frozen teacher of the student's tokens."""
ONE_SHARD = 2**24


def store(
    folder: Path,
    full: bool = False,
    include: tuple[str, ...] = (),
    form: str = "float32",
    shard_bytes: int = ONE_SHARD,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> list[Path]:
    """Extract the store of a small run."""
    config = ExtractConfig(**{**SMALL, **SMALL_STORE, **changes, "output_dir": "unused"})
    request = Request(
        config=config,
        store=folder,
        full=full,
        include=frozenset(include),
        form=form,
        shard_bytes=shard_bytes,
    )
    return extract(request, ranks=ranks)


def manifest_of(folder: Path) -> Manifest:
    return read_manifest(folder)


def use(folder: Path, **changes: Any) -> Any:
    """Build a run that reads a store."""
    return build_run(small("unused", **{**SMALL_STORE, "store": [str(folder)], **changes}))


def rows_of(folder: Path, **changes: Any) -> list[dict[str, float]]:
    """Train a small run to the end: what it logged."""
    run(small(folder, **{**SMALL_STORE, **changes}))
    return all_rows(folder)


def check_same_losses(
    live: list[dict[str, float]], stored: list[dict[str, float]], tolerance: float = 1e-5
) -> None:
    """Every number that a run logged, from the store as live."""
    assert len(live) == len(stored) > 0
    for ours, theirs in zip(stored, live):
        assert ours.keys() == theirs.keys()
        numbers = {name: value for name, value in theirs.items() if isinstance(value, float)}
        assert numbers
        assert {name: ours[name] for name in numbers} == pytest.approx(
            numbers, rel=tolerance, abs=tolerance
        )


def write_rows(path: Path, num_rows: int = 24) -> str:
    """Texts whose chains of thought differ in length."""
    rows = []
    for place in range(num_rows):
        steps = [f"{place} + {n} = {place + n}" for n in range(1, 3 + place % 4)]
        row = {"question": f"{place} and some?", "reasoning": "\n".join(steps), "answer": "7"}
        rows.append(json.dumps({**row, "teacher_id": ("gpt2", "llama")[place % 2]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)
