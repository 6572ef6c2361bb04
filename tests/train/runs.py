"""Small runs for the tests of training."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from kava.data.collate import Batch, Collator
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_distiller, build_teacher_tokenizer, build_tokenizer
from kava.train.objective import Distiller
from kava.train.scores import needs_scores, with_scores

SMALL: dict[str, Any] = {
    "model_name": "kava/shell-llama",
    "target_len": 3,
    "dataset_name": "kava/shell-game?num_train=64",
    "max_length": 64,
    "batch_size": 8,
    "max_steps": 4,
    "lr": 1e-3,
    "logging_steps": 1,
    "save_steps": 100,
    "no_progress": True,
    "device": "cpu",
    "kv_layer_std": True,
    "alignment_mode": "identity",
}


def small(output_dir: Path | str = "unused", **changes: Any) -> TrainConfig:
    """A configuration that trains a tiny model for a few steps."""
    return TrainConfig(**{**SMALL, "output_dir": str(output_dir), **changes})


def distiller_and_batch(config: TrainConfig, size: int = 8) -> tuple[Distiller, Batch]:
    """The module that a run trains, and one batch of its data."""
    tokenizer = build_tokenizer(config)
    theirs = build_teacher_tokenizer(config, tokenizer)
    data = load_data(config, tokenizer, theirs)
    assert isinstance(tokenizer.pad_token_id, int)
    collate = Collator(tokenizer.pad_token_id, None if theirs is None else theirs.pad_token_id)
    distiller, samples = build_distiller(config), data.train[:size]
    if needs_scores(config):
        teacher = distiller.base if distiller.teacher is None else distiller.teacher
        samples = with_scores(config, teacher, samples, data.train_records, data.template)
    return distiller, collate(samples)


def rows(batch: Batch, index: slice) -> Batch:
    """Some samples of a batch, with the padding they have in it."""
    return {  # type: ignore[return-value]
        name: part[index] if isinstance(part, torch.Tensor | list) else part
        for name, part in batch.items()
    }


def run(config: TrainConfig) -> Run:
    """Train to the end."""
    built = build_run(config)
    built.trainer.train(resume_from_checkpoint=str(built.checkpoint) if built.checkpoint else None)
    return built


def metrics(output_dir: Path | str) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl that speak of a training step."""
    text = (Path(output_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "loss" in line]


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: part.detach().clone() for name, part in module.state_dict().items()}


class Interrupt(TrainerCallback):
    """End a run by Ctrl-C, at the end of a step or in the evaluation of one."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def interrupted(config: TrainConfig, step: int) -> None:
    """Train, from the newest checkpoint with `resume`, and stop at the end of a step."""
    built = build_run(config)
    built.trainer.add_callback(Interrupt(step))
    start = None if built.checkpoint is None else str(built.checkpoint)
    with suppress(KeyboardInterrupt):
        built.trainer.train(resume_from_checkpoint=start)


WALL_CLOCK = {
    "seconds", "peak_memory_bytes", "train_runtime", "train_samples_per_second",
    "train_steps_per_second",
}  # fmt: skip


def all_rows(output_dir: Path | str) -> list[dict[str, float]]:
    """All lines of a run's metrics.jsonl, without what the machine's speed decides."""
    lines = (Path(output_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in WALL_CLOCK}
        for line in lines
    ]
