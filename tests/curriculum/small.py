"""A small curriculum, run in this process."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kava.cli import run
from kava.commands.curriculum import main
from kava.jobs.worker import Memory

LLAMA, GPT2 = "kava/shell-teacher", "kava/shell-gpt2-teacher"
FAMILIES = {"teachers": [f"llama={LLAMA}", f"gpt2={GPT2}"]}
SMALL: dict[str, Any] = {
    "name": "small",
    "question": "Does it run?",
    "base": {
        "model_name": LLAMA, "teacher_name": LLAMA, "target_len": 3, "kv_method": "positions",
        "kv_layer_std": True, "kv_weight": 5.0, "token_alignment": "soft", "lr": "1e-3",
        "max_length": 64, "max_new_tokens": 2, "calibration_samples": 48, "device": "cpu",
        "save_steps": 1,
    },
    "data": {
        "train": "kava/shell-game?num_train=128", "test": "kava/shell-game?num_test=20",
        "curve_items": 8, "test_items": 8,
    },
    "budget": {"steps": 2, "batch_size": 8},
    "phases": {
        "dual_prompt": {
            "what": "two prompts",
            "changes": {
                "teachers": [f"plain={LLAMA}", f"steps={LLAMA}"],
                "teacher_prompts": ["{question}\n", "{question} steps ?\n"],
                "fixed_weights": [0.7, 0.3],
            },
        },
        "samples": {
            "what": "two chains of a game",
            "data": {
                "train": "kava/shell-game?num_train=128&form=each",
                "test": "kava/shell-game?num_test=40&form=each",
            },
            "steps": 3,
        },
        "checkpoints": {
            "what": "two families", "changes": {**FAMILIES, "fusion": "similarity"},
        },
        "routing": {
            "what": "by the sample", "changes": FAMILIES,
            "stages": {
                "fixed": {"fusion": "fixed"},
                "similarity": {"fusion": "similarity", "fusion_per_layer": True},
                "learnable": {"fusion": "learnable", "entropy_reg_strength": 0.01},
            },
        },
        "shared_space": {
            "what": "points of three families",
            "changes": {
                "teachers": [f"gpt2={GPT2}", "bert=kava/shell-bert", "t5=kava/shell-t5"],
                "kv_weight": 0.0, "kv_layer_std": False, "shared_space_weight": 5.0,
                "shared_space_dim": 8,
            },
        },
    },
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    """The small curriculum, with values at dotted places, written with __; None takes a key out."""
    values = copy.deepcopy(SMALL)
    for place, value in changes.items():
        *levels, key = place.split("__")
        at = values
        for level in levels:
            at = at.setdefault(level, {})
        if value is None:
            del at[key]
        else:
            at[key] = value
    return values


def written(folder: Path, values: Any) -> Path:
    """The plan as a file."""
    path = folder / "curriculum.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def curriculum(folder: Path, values: dict[str, Any], *flags: str) -> int:
    """`kava curriculum run`, into a folder of its own."""
    plan = written(folder, values)
    return run(main, ["run", str(plan), "--output_dir", str(folder / "out"), *flags])


class _Nobody:
    """The connection to a parent that does not listen."""

    def send(self, message: Any) -> None:
        pass


class Here:
    """A crew that does its jobs in this process."""

    def __init__(self, size: int, view: Any, **options: Any):
        pass

    def do(self, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        memory = Memory()
        for job in jobs:
            yield job, job.do(_Nobody(), memory)

    def end(self) -> None:
        pass


def here(patch: pytest.MonkeyPatch) -> None:
    """Let studies do their runs in this process."""

    def to_log(path: Path, *, append: bool = False) -> None:
        with path.open("a" if append else "w") as file:
            file.write("resumed\n" if append else "begun\n")

    patch.setattr("kava.shared.fit.NUM_STEPS", 100)
    patch.setattr("kava.study.runner.Crew", Here)
    patch.setattr("kava.study.run.print_to", to_log)
