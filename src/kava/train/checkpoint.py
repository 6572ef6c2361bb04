"""Checkpoints that are whole or absent, and that hold everything a run needs to go on.

A checkpoint is written under a temporary name and renamed when it is complete, so a process
killed in the middle of a save leaves earlier checkpoints as they are. Beside the student it holds
the aligner (`map_aligner.safetensors`, keys `map_aligner.*`), the configuration, the hash of the
training data, the versions of the libraries, and what the library's trainer needs: optimiser,
schedule, random states, progress.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer_utils import rotate_checkpoints

from kava.align.layerwise import LayerwiseProjector
from kava.student.checkpoint import library_versions, read_settings, save_student
from kava.train.config import RESUMABLE, TrainConfig

if TYPE_CHECKING:
    from kava.align import MapProjectionAligner
    from kava.train.objective import Distiller
    from kava.train.trainer import KVDistillTrainer

ALIGNER_FILE = "map_aligner.safetensors"
STAGING = ".saving"


class CheckpointWriter:
    """Writes a trainer's checkpoints: staged in a hidden folder, renamed when complete."""

    def __init__(self, trainer: KVDistillTrainer):
        self.trainer = trainer
        self.output_dir = Path(trainer.config.output_dir)
        self.run_dir = self.output_dir
        if trainer.args.should_save:
            # left behind by a process that was killed while it saved
            shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)

    @contextmanager
    def staged(self, step: int) -> Iterator[None]:
        """Save inside the block: what is written to `run_dir` appears at once, at its end.

        Raises:
            OSError: it could not be written; nothing of it is left, earlier ones are intact.
        """
        trainer = self.trainer
        name = f"checkpoint-{step}"
        final = self.output_dir / name
        self.run_dir = self.output_dir / STAGING
        try:
            yield
            trainer.accelerator.wait_for_everyone()
            if trainer.args.should_save:
                self._name_best(self.run_dir / name, step)
                _replace(self.run_dir / name, final)
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self.output_dir} "
                f"({reason}); free some space or choose another --output_dir, then --resume: "
                f"earlier checkpoints are intact"
            ) from error
        finally:
            self.run_dir = self.output_dir
            if trainer.args.should_save:
                shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        if trainer.args.should_save:
            rotate_checkpoints(
                output_dir=str(self.output_dir),
                save_total_limit=trainer.args.save_total_limit,
                best_model_checkpoint=trainer.state.best_model_checkpoint,
                use_mtime=False,
            )

    def _name_best(self, staged: Path, step: int) -> None:
        """Where the best checkpoint will be, rather than where the library just wrote it."""
        state = self.trainer.state
        if state.best_global_step == step:
            state.best_model_checkpoint = str(self.output_dir / staged.name)
        state.save_to_json(str(staged / "trainer_state.json"))

    def write_model(self, directory: str | Path) -> None:
        """Student, tokenizer, settings and aligner."""
        trainer = self.trainer
        distiller: Distiller = trainer.accelerator.unwrap_model(trainer.model)
        assert trainer.processing_class is not None
        save_student(
            directory,
            distiller.student,
            trainer.processing_class,  # type: ignore[arg-type]
            settings_of(trainer),
        )
        save_file(
            {name: part.detach().contiguous() for name, part in beside_student(distiller).items()},
            Path(directory) / ALIGNER_FILE,
        )


def settings_of(trainer: KVDistillTrainer) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    return {
        "student": trainer.config.student,
        "step": trainer.state.global_step,
        "template": asdict(trainer.template),
        "data_hash": trainer.data_hash,
        "config": asdict(trainer.config),
        "versions": library_versions(),
    }


def beside_student(distiller: Distiller) -> dict[str, Tensor]:
    """Parameters and buffers that are not the student's: the aligner's, and CODI's projection."""
    state = distiller.state_dict()
    return {name: part for name, part in state.items() if not name.startswith("student.")}


def load_checkpoint(directory: str | Path, distiller: Distiller) -> None:
    """Put a checkpoint's student and aligner into `distiller`.

    Raises:
        OSError: a file is missing or damaged; it is named.
        ValueError: weights of other names or shapes.
    """
    directory = Path(directory)
    student = _read(directory / "model.safetensors")
    ours = distiller.student.state_dict()
    # tied weights are stored once
    tied = {name for name in ours if name not in student}
    known = {ours[name].data_ptr() for name in student if name in ours}
    lost = [name for name in tied if ours[name].data_ptr() not in known]
    foreign = [name for name in student if name not in ours]
    if lost or foreign:
        raise ValueError(
            f"{directory} is a checkpoint of another model: {(lost + foreign)[0]!r} does not match"
        )
    distiller.student.load_state_dict(student, strict=False)
    rest = _read(directory / ALIGNER_FILE)
    if distiller.settings.map_rank == "auto":
        for name, projector in distiller.map_aligner.named_children():
            key = f"map_aligner.{name}.head_mix"
            if key in rest and isinstance(projector, LayerwiseProjector):
                projector.set_rank(rest[key].shape[1])
    expected = beside_student(distiller)
    for name, part in expected.items():
        if name not in rest or rest[name].shape != part.shape:
            raise ValueError(
                f"{directory / ALIGNER_FILE}: {name!r} is missing or has another shape"
            )
    distiller.load_state_dict(rest, strict=False)


def load_aligner(directory: str | Path, aligner: MapProjectionAligner) -> None:
    """Put a checkpoint's aligner into one of the same geometry, mode and rank.

    Raises:
        OSError: the file is missing or damaged.
        ValueError: weights of other names or shapes.
    """
    path, prefix = Path(directory) / ALIGNER_FILE, "map_aligner."
    theirs = {name: part for name, part in _read(path).items() if name.startswith(prefix)}
    state = {name.removeprefix(prefix): part for name, part in theirs.items()}
    for name, part in aligner.state_dict().items():
        if name not in state or state[name].shape != part.shape:
            raise ValueError(f"{path}: {prefix + name!r} is missing or has another shape")
    aligner.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise OSError(f"{path} is missing: the checkpoint is incomplete; resume from another")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is damaged ({error}); resume from another checkpoint") from error


def check_same_run(directory: Path, config: TrainConfig, data_hash: str) -> None:
    """Refuse to go on with a checkpoint of another configuration or other data.

    Raises:
        ValueError: names the first key that differs, and both values.
    """
    theirs = read_settings(directory)
    ours = asdict(config)
    for name, value in theirs["config"].items():
        if name not in RESUMABLE and name in ours and ours[name] != value:
            raise ValueError(
                f"{directory} was written with --{name} {value!r}, this run has {ours[name]!r}: "
                f"give the same value, or another --output_dir"
            )
    if theirs["data_hash"] != data_hash:
        raise ValueError(
            f"{directory} was trained on other data (hash {theirs['data_hash'][:12]}, now "
            f"{data_hash[:12]}): give the same data, or another --output_dir"
        )


def _replace(source: Path, target: Path) -> None:
    """Rename a folder over another that may exist, so that one of them is always whole."""
    for path in source.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(source, target)
        shutil.rmtree(old)
    else:
        os.replace(source, target)
