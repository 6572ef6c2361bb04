"""What a checkpoint and its run's logs say of a student; what they do not say is None."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kava.flags import flags_of
from kava.flags.fields import Setting
from kava.inputs import read_json
from kava.names import is_given
from kava.student.settings import read_settings
from kava.student.whole import RECORDING_FILE, STATE_FILE
from kava.train.config import TrainConfig
from kava.train.defaults import BEFORE
from kava.train.loss_line import loss_weights
from kava.train.recorded import recorded_values

NOT_OF_A_RUN = ("resume", "resume_from", "overwrite", "no_progress", "device")
"""Flags that do not belong to what a run is."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a student.

    Attributes:
        student: latent or explicit.
        config: the run's settings by name; empty if they were not recorded.
        step: optimiser steps of the checkpoint.
        data_hash: SHA-256 of the training records.
        evaluation: the row of the last evaluation; empty without one.
        verdict: what the collapse guard said at it; empty without one.
        versions: of Python and the libraries that trained it.
    """

    student: str
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    data_hash: str | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers; empty in self-distillation, and where none is known."""
        several = self.config.get("teachers")
        if several:
            return tuple(name.rpartition("=")[2] for name in several)
        one = self.config.get("teacher_name")
        return () if one is None else (one,)

    @property
    def weights(self) -> dict[str, float]:
        """The terms of the loss and their weights, by their names in metrics.jsonl."""
        known = {**BEFORE, **self.config}
        try:
            return loss_weights(TrainConfig(**known)) if self.config else {}
        except (TypeError, ValueError):  # of another version
            found = {name: known.get(f"{name}_weight") for name in ("ce", "kv", "codi", "cka")}
            return {name: weight for name, weight in found.items() if weight}

    @property
    def command(self) -> str | None:
        """The command with the settings of the run; None where no command line can name them."""
        if not self.config or any(is_given(str(self.config.get(n))) for n in _NAMES):
            return None
        words = [
            word
            for name, setting in flags_of(TrainConfig).items()
            if name in self.config and name not in NOT_OF_A_RUN
            for word in _words(setting, self.config[name])
        ]
        return shlex.join(["kava", "train", *words])


_NAMES = ("model_name", "teacher_name", "dataset_name", "eval_dataset_name")


def _words(setting: Setting, value: Any) -> list[str]:
    """A setting on the command line; nothing for a default."""
    if value is None or value == setting.default:
        return []
    if value is True:
        return [f"--{setting.name}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{setting.name}", *map(str, values)]


def facts_of(checkpoint: str | Path) -> Facts:
    """Read what a checkpoint and the logs in it say.

    Args:
        checkpoint: a folder of `kava train`, or one that `save_student` wrote.

    Raises:
        OSError: no such folder.
        ValueError: a damaged file.

    Example:
        >>> facts_of("outputs/run/checkpoint-500").evaluation["eval_accuracy"]
        0.98
    """
    folder = Path(checkpoint)
    settings = read_settings(folder)
    state, recording = (_object(folder / name) for name in (STATE_FILE, RECORDING_FILE))
    rows = [
        row for row in state.get("log_history", ()) if isinstance(row, dict) and "eval_ce" in row
    ]
    config = recorded_values(settings, flags_of(TrainConfig))
    return Facts(
        student=settings["student"],
        config=config if "model_name" in config else {},  # an exported student has a part of it
        step=settings.get("step"),
        data_hash=settings.get("data_hash") or None,
        evaluation=rows[-1] if rows else {},
        verdict=recording.get("verdict") or {},
        versions=settings.get("versions", {}),
    )


def _object(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty without the file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return found
