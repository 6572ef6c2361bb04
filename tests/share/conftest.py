"""A run of each kind of student, on the built-in game."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.commands.train import main as train

GAME = "kava/shell-game?num_moves=4&num_train=48&num_test=6"
TRAIN = (
    f"--model_name kava/shell-llama --teacher_name kava/shell-teacher --dataset_name {GAME} "
    "--max_length 64 --max_steps 2 --batch_size 8 --eval_size 8 --max_new_tokens 12 --no_progress "
    "--device cpu"
)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders `latent` and `explicit` of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    assert train([*TRAIN.split(), "--target_len", "2", "--output_dir", f"{folder}/latent"]) == 0
    explicit = ["--student", "explicit", "--kv_method", "uniform", "--target_len", "2"]
    assert train([*TRAIN.split(), *explicit, "--output_dir", f"{folder}/explicit"]) == 0
    return folder
