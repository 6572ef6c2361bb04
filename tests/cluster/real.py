"""Small studies that are really trained, and comparisons of what they leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kava.cli import run
from kava.commands.study import main as study
from study.test_plan import changed

ARMS = {
    "flat": {"what": "flat map", "role": "baseline", "changes": {"alignment_mode": "flat"}},
    "wrong": {
        "what": "other cache", "role": "control",
        "changes": {"alignment_mode": "flat", "wrong_sample": True},
    },
}  # fmt: skip
CLOCK = {
    *("seconds", "seconds_per_answer", "tokens_per_second", "peak_memory_bytes"),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
}
"""Of a row: what measures the machine."""

NOT_COMPARED = ("train_seconds", "peak_memory_bytes", "cost", "files", "last")
"""Of a result: what measures the machine, and hashes of files that hold it."""


def small(steps: int, **changes: Any) -> dict[str, Any]:
    """A plan of two arms and three seeds that saves at its end alone, or when it is asked to."""
    cadence = {"base__logging_steps": 1, "base__save_steps": 10_000}
    return changed(arms=ARMS, seeds=[0, 1, 2], budget__steps=steps, **{**cadence, **changes})


def wait_until(reached: Callable[[], Any], minutes: float = 60) -> None:
    deadline = time.monotonic() + 60 * minutes
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The log of a run without what measures the machine."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = []
    for line in lines:
        row = json.loads(line) if line.endswith("}") else {}
        kept.append({key: value for key, value in row.items() if key not in CLOCK})
    return kept


def last_step(folder: Path) -> int:
    """The step that a run has come to."""
    return max((row.get("step", 0) for row in rows(folder)), default=0)


def outcome(folder: Path) -> dict[str, Any]:
    """The result of a run without what measures the machine."""
    found = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in found.items() if key not in NOT_COMPARED}


def stops(out: Path, name: str) -> list[int]:
    path = out / "cluster/stops" / name
    return [int(line) for line in path.read_text().split()] if path.is_file() else []


def same_as_alone(plan: Path, out: Path, alone: Path, *flags: str) -> None:
    """The runs of `out` are those of `kava study run` in one go, to the last bit."""
    assert run(study, ["run", str(plan), "--jobs", "1", "--output_dir", str(alone), *flags]) == 0
    folders = sorted(path.parent for path in alone.glob("runs/*/seed-*/result.json"))
    assert folders
    for folder in folders:
        own = out / folder.relative_to(alone)
        assert rows(own) == rows(folder)
        assert (own / "items.jsonl").read_bytes() == (folder / "items.jsonl").read_bytes()
        assert outcome(own) == outcome(folder)
