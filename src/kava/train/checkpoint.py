"""Checkpoints that are complete or absent, with everything that a run needs to resume.

A checkpoint is written under a temporary name, its manifest of files last, and renamed when it is
complete: a process killed during a save leaves earlier checkpoints unchanged. Besides the student
it holds the aligner (`map_aligner.safetensors`, keys `map_aligner.*`), the configuration, the hash
of the training data, library versions, the run's record, and what transformers' trainer needs:
optimiser, schedule, random states, progress.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from kava.data.records import Template
from kava.errors import WriteError
from kava.files.write import flush, share_files
from kava.student.adapted import BASE_DTYPE
from kava.student.checkpoint import checkpoints_by_step, library_versions, save_student
from kava.student.manifest import amend, write_manifest
from kava.student.whole import ALIGNER_FILE, RECORDING_FILE, STATE_FILE
from kava.train.loading import beside_student
from kava.train.recording import read_recording

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerState

    from kava.train.config import TrainConfig
    from kava.train.objective import Distiller

STAGING = ".saving"


class CheckpointWriter:
    """Writes a run's checkpoints to a hidden folder and renames them when complete.

    It keeps the newest `save_total_limit` checkpoints and also the best one, which has the highest
    held-out accuracy.

    Args:
        output_dir: the run's folder.
        save_total_limit: number of checkpoints to keep besides the best; 0 keeps all.
        saves: whether this process writes files.
        accelerator: synchronises the processes of a distributed run.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_total_limit: int | None,
        *,
        saves: bool,
        accelerator: Accelerator,
    ):
        self.output_dir = Path(output_dir)
        self.limit = save_total_limit
        self.saves = saves
        self.accelerator = accelerator
        self.run_dir = self.output_dir
        self.gives_way: tuple[Path, ...] = ()
        """Checkpoints of an earlier run, which go when the first step of this one is done."""
        if saves:
            # left by a process that was killed during a save
            shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)
            for rest in self.output_dir.glob(".checkpoint-*.old"):
                shutil.rmtree(rest, ignore_errors=True)

    def clear(self) -> None:
        """Take away what gives way, once: later checkpoints may have the same names."""
        if self.saves:
            for path in self.gives_way:
                remove_checkpoint(path)
        self.gives_way = ()

    @contextmanager
    def staged(self, state: TrainerState) -> Iterator[None]:
        """Save inside the block: all that is written to `run_dir` appears at the end, at once.

        Args:
            state: of the run, at the step that is saved.

        Raises:
            OSError: the checkpoint could not be written; it is removed, and earlier ones are
                intact.
        """
        step = state.global_step
        name = f"checkpoint-{step}"
        self.run_dir = self.output_dir / STAGING
        try:
            yield
            self.accelerator.wait_for_everyone()
            if self.saves:
                folder = self.run_dir / name
                (folder / STATE_FILE).write_text(self._state(state), encoding="utf-8")
                write_manifest(folder)
                share_files(folder)
                _replace(folder, self.output_dir / name)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise self._unwritten(step, error) from error
        finally:
            self.run_dir = self.output_dir
            if self.saves:
                shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.saves:
            self._rotate(state)

    def add_evaluation(self, state: TrainerState, verdict: Mapping[str, Any] | None) -> None:
        """Add the evaluation of a step to its checkpoint, which was written before it.

        Args:
            state: trainer state at that step.
            verdict: the collapse guard's verdict.

        Raises:
            OSError: it could not be written; the checkpoint is complete but has no evaluation.
        """
        folder = self.output_dir / f"checkpoint-{state.global_step}"
        if not self.saves or not folder.is_dir():
            return
        record = {**read_recording(folder), "verdict": verdict}
        texts = {
            RECORDING_FILE: json.dumps(record, indent=2) + "\n",
            STATE_FILE: self._state(state),
        }
        try:
            amend(folder, texts)
        except OSError as error:
            raise self._unwritten(state.global_step, error) from error
        self._rotate(state)

    def _unwritten(self, step: int, error: Exception) -> WriteError:
        reason = str(error).splitlines()[0]
        if "inline_container" in reason:  # torch's error for a file that it could not write
            reason = "the disk is full, or a file grew beyond what is allowed"
        return WriteError(
            f"the checkpoint of step {step} could not be written to {self.output_dir} "
            f"({reason}); free some space or choose another --output_dir, then --resume: "
            f"earlier checkpoints are intact"
        )

    def _state(self, state: TrainerState) -> str:
        """The trainer state as JSON; it names the best checkpoint without its folder, which may
        move."""
        there = checkpoints_by_step(self.output_dir)
        best = best_step({*there, state.global_step}, state.log_history)
        name = None if best is None else f"checkpoint-{best}"
        state.best_model_checkpoint = None if name is None else str(self.output_dir / name)
        saved = asdict(replace(state, best_model_checkpoint=name))
        return json.dumps(saved, indent=2, sort_keys=True) + "\n"

    def _rotate(self, state: TrainerState) -> None:
        """Remove the oldest checkpoints."""
        there = checkpoints_by_step(self.output_dir)
        best = best_step(there, state.log_history)
        for step in sorted(there)[: -self.limit if self.limit else 0]:
            if step != best:
                remove_checkpoint(there[step])

    def write_model(
        self,
        directory: str | Path,
        distiller: Distiller,
        tokenizer: PreTrainedTokenizerBase,
        settings: Mapping[str, Any],
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write student, tokenizer, settings (see `settings_of`) and aligner.

        Args:
            directory: the folder.
            distiller: what is trained.
            tokenizer: the student's.
            settings: of the run.
            state: the distiller's whole weights, where it holds a share of them.
        """
        prefix = "student."
        own = None
        if state is not None:
            own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        save_student(directory, distiller.student, tokenizer, settings, own)
        rest = beside_student(distiller) if state is None else state
        save_file(
            {
                name: part.detach().contiguous()
                for name, part in rest.items()
                if not name.startswith(prefix)
            },
            Path(directory) / ALIGNER_FILE,
        )


def settings_of(
    config: TrainConfig, *, step: int, template: Template, data_hash: str, machine: dict[str, Any]
) -> dict[str, Any]:
    """The settings that a checkpoint stores about its run.

    Args:
        config: the run's configuration.
        step: the last completed step.
        template: the template that turned records into text.
        data_hash: hash of the training records.
        machine: the result of `kava.train.resume.machine_of`.
    """
    return {
        "student": config.student,
        **({BASE_DTYPE: config.base_dtype} if config.lora_r else {}),
        "step": step,
        "template": asdict(template),
        "data_hash": data_hash,
        "config": asdict(config),
        "versions": library_versions(),
        "machine": machine,
    }


def best_step(steps: Iterable[int], log_history: Sequence[Mapping[str, Any]]) -> int | None:
    """The (first) step with the highest held-out accuracy; None if no step has one.

    Example:
        >>> best_step([2, 4, 8], [{"step": 2, "eval_accuracy": 0.5}, {"step": 3, "loss": 1.0}])
        2
    """
    accuracies = {
        row["step"]: row["eval_accuracy"] for row in log_history if "eval_accuracy" in row
    }
    return max(sorted(accuracies.keys() & set(steps)), key=accuracies.__getitem__, default=None)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint atomically: a process killed meanwhile leaves no partial one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Rename a folder over one that may exist, so that a complete one is always there."""
    for path in [*source.rglob("*"), source]:
        flush(path)
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(source, target)
    flush(target.parent)
