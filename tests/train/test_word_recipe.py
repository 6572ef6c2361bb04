"""What `kava train` takes for granted of the built-in word problems, and what it logs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kava.commands.train import train
from kava.train.config import TrainConfig
from kava.train.defaults import NO_MODEL_NAMED, default_lines
from kava.train.flags import parse_config

DATA = "kava/word-problems"


def test_the_task_alone_takes_its_recipe_and_a_model_named_takes_none() -> None:
    config = parse_config(["--dataset_name", f"{DATA}?steps=2-3", "--lr", "2e-3"])
    assert (config.model_name, config.teacher_name) == ("kava/word-teacher",) * 2
    assert (config.eval_dataset_name, config.eval_split) == (config.dataset_name, "test")
    assert (config.lr, config.kv_method, config.batch_size) == (2e-3, "full", 64)
    assert any(line.endswith(NO_MODEL_NAMED) for line in default_lines(config))
    own = parse_config(["--dataset_name", DATA, "--model_name", "kava/word-llama"])
    assert (own.teacher_name, own.kv_method, own.batch_size) == (None, "rkv", 8)


@pytest.mark.parametrize(
    ("name", "given", "target_len", "keep_short"),
    [
        (DATA, {}, 4, True),
        (f"{DATA}?steps=4", {}, 3, False),
        (f"{DATA}?steps=3-5", {"keep_last_step": True}, 5, True),
        (f"{DATA}?steps=3-5", {"keep_short": False}, 2, False),
        (f"{DATA}?steps=2-8", {}, 6, True),
        (DATA, {"target_len": 2}, 2, True),
        (DATA, {"student": "explicit", "kv_weight": 0.0}, 6, False),
        (DATA, {"model_name": "gpt2"}, 6, False),
        ("kava/shell-game", {"model_name": "kava/shell-teacher"}, 3, False),
        ("kava/shell-game", {"model_name": "kava/shell-teacher", "keep_short": True}, 6, True),
    ],
)
def test_latents_are_as_many_as_the_longest_problem_needs(
    name: str, given: dict[str, Any], target_len: int, keep_short: bool
) -> None:
    config = TrainConfig(**{"model_name": "kava/word-llama", "dataset_name": name, **given})
    assert (config.target_len, config.keep_short) == (target_len, keep_short)


def test_a_run_logs_its_accuracy_by_written_steps(tmp_path: Path) -> None:
    train(
        TrainConfig(
            model_name="kava/word-llama",
            dataset_name=f"{DATA}?num_train=40&num_test=40",
            eval_dataset_name=f"{DATA}?num_test=30",
            eval_size=30,
            batch_size=8,
            max_steps=2,
            max_new_tokens=4,
            output_dir=str(tmp_path / "run"),
            no_progress=True,
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    (found,) = [row for row in rows if "eval_accuracy" in row]
    assert {key for key in found if key.startswith("eval_accuracy_")} == {
        f"eval_accuracy_{steps}_steps" for steps in (2, 3, 4, 5)
    }
