"""One run of a study, in a process of its own: train, test, and write everything down.

A run that was cut in the middle goes on from its newest checkpoint where it has one, and else
begins again. What it prints goes to its log.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.files import write_whole
from kava.jobs.worker import Memory, print_to
from kava.locks import clear_folder, lock_folder
from kava.study import folder as files
from kava.study.plan import Arm, Plan, canonical_hash
from kava.study.settings import train_config

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


NOT_DECIDING = (
    "output_dir", "resume", "resume_from", "overwrite", "no_progress", "save_only_model",
)  # fmt: skip
"""Settings that decide nothing of a result."""

ADDED_LATER = ("fp16",)
"""Settings that came after studies had been run. One that has its default does not count, so that a
folder of before goes on; a new field of `TrainConfig` belongs here, or among those above."""


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed.

    Args:
        plan: of the study.
        arm: one of its arms.
        seed: one of its seeds.
        study: the folder of the study.
        fingerprint: what else decides the result: the libraries' versions, local weights.
    """

    plan: Plan
    arm: Arm
    seed: int
    study: Path
    fingerprint: dict[str, str]
    unit = "steps"

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return files.run_folder(self.study, self.arm.name, self.seed)

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.folder / files.LOG_FILE

    @cached_property
    def config(self) -> TrainConfig:
        """Of its training."""
        return train_config(self.plan, self.arm, self.seed, self.folder)

    @property
    def num_steps(self) -> int:
        """Steps to show in its bar; 0 where only the data tell."""
        config = self.config
        if not self.arm.trained:
            return 0
        if config.max_steps > 0 or config.subset_size is None:
            return max(config.max_steps, 0)
        per_step = config.batch_size * config.gradient_accumulation_steps
        return round(-(-config.subset_size // per_step) * config.epochs)

    @cached_property
    def settings_hash(self) -> str:
        """SHA-256 of all that decides the result, wherever it is written."""
        from kava.train.config import TrainConfig

        defaults = {one.name: one.default for one in fields(TrainConfig)}
        config = {
            name: value
            for name, value in asdict(self.config).items()
            if name not in NOT_DECIDING and not (name in ADDED_LATER and value == defaults[name])
        }
        settings = {
            "config": config,
            "trained": self.arm.trained,
            "test_items": self.plan.data.test_items,
            **self.fingerprint,
        }
        return canonical_hash(settings)

    def finished(self) -> dict[str, Any] | None:
        """The result of an earlier call, if there is one.

        Raises:
            ValueError: it is damaged, or was made with other settings; it is kept.
        """
        result = files.read_result(self.folder)
        if result is None or not result["finished"]:
            return None
        if result["settings_hash"] != self.settings_hash:
            raise ValueError(
                f"{self.folder} holds a finished run with other settings "
                f"({_apart(result, self.fingerprint)}): go on with the libraries and weights that "
                f"it began with, or take another --output_dir"
            )
        return result

    def do(self, connection: Connection, memory: Memory) -> dict[str, Any]:
        """Train and test; returns the result."""
        with lock_folder(self.folder, "kava study run"):
            resume = self._prepare()
            print_to(self.log, append=resume)
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.folder / "tensorboard")
            from kava.study.doing import as_it_is, trained

            return trained(self, connection, memory, resume) if self.arm.trained else as_it_is(self)

    def fail(self, reason: str) -> None:
        """Record that the run failed; its checkpoints stay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"finished": False, "reason": reason})

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result, which names the hashes of the other files: the last thing of a run."""
        hashes = {
            name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            for name in files.RECORDED
            if (self.folder / name).is_file()
        }
        return self._write({"finished": True, **result, "files": hashes})

    def _write(self, result: dict[str, Any]) -> dict[str, Any]:
        whole = {
            "arm": self.arm.name,
            "seed": self.seed,
            "plan_hash": self.plan.hash,
            "settings_hash": self.settings_hash,
            **result,
            "versions": self.fingerprint,
        }
        write_json(self.folder / files.RESULT_FILE, whole)
        return whole

    def _prepare(self) -> bool:
        """Make the folder ready; whether to go on from a checkpoint in it."""
        from kava.train.resume import whole_checkpoint

        path = self.folder / files.SETTINGS_FILE
        begun = path.is_file() and self.settings_hash in path.read_text(encoding="utf-8")
        (self.folder / files.RESULT_FILE).unlink(missing_ok=True)  # of a run that failed
        if begun and whole_checkpoint(self.folder) is not None:
            return True
        clear_folder(self.folder)
        write_json(path, {"settings_hash": self.settings_hash})
        return False


def _apart(result: dict[str, Any], now: dict[str, str]) -> str:
    then = result["versions"]
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    parts = [f"{name} {then.get(name)!s:.12}, now {now.get(name)!s:.12}" for name in names]
    return "; ".join(parts) or "this version of kava trains with other settings"


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the file is whole or absent."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
