"""Disk space that a run's checkpoints need, computed before the first is written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from kava.format import counted, file_size
from kava.student.adapted import stored_state
from kava.train.loading import beside_student
from kava.train.states import state_bytes

if TYPE_CHECKING:
    from kava.train.trainer import RunTrainer


class DiskNeed(NamedTuple):
    """The disk space that checkpoints need, in bytes.

    Attributes:
        checkpoint: size of one checkpoint: weights, and the optimiser state if it is saved.
        most: largest number of checkpoints at a time, with the one being written.
        free: free space, plus the checkpoints that the run may remove.
    """

    checkpoint: int
    most: int
    free: int

    def __str__(self) -> str:
        whole = file_size(self.most * self.checkpoint)
        return (
            f"{file_size(self.checkpoint)} a checkpoint, at most {self.most} at a time: {whole} of "
            f"{file_size(self.free)} free"
        )


def disk_need(trainer: RunTrainer, gives_way: Iterable[Path] = ()) -> DiskNeed:
    """The disk space that a run will need.

    Args:
        trainer: before training.
        gives_way: checkpoints that are removed first.
    """
    config, module = trainer.config, trainer.accelerator.unwrap_model(trainer.model)
    # tied weights share one storage and are saved once
    saved = (*stored_state(module.student).values(), *beside_student(module).values())
    stored = {part.data_ptr(): part for part in saved}
    size = _bytes(stored.values())
    if not config.save_only_model:
        size += state_bytes(config.optim, module)
    saves = math.ceil(trainer.total_steps / config.save_steps)
    limit = config.save_total_limit or saves
    most = min(saves, limit + 1 + bool(trainer.eval_records))
    folder = Path(config.output_dir).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    files = [file for path in gives_way for file in path.rglob("*") if file.is_file()]
    freed = sum(file.stat().st_size for file in files)
    return DiskNeed(size, max(most, 1), shutil.disk_usage(there).free + freed)


def check_disk(need: DiskNeed, output_dir: str) -> list[str]:
    """Refuse a run whose first checkpoint does not fit on the disk.

    Returns:
        A warning if later checkpoints will not fit; else None.

    Raises:
        OSError: less free space than one checkpoint needs.
    """
    mend = "free some space, choose another --output_dir, or pass --save_only_model"
    if need.free < need.checkpoint:
        raise OSError(
            f"a checkpoint takes {file_size(need.checkpoint)}, and {output_dir} has "
            f"{file_size(need.free)} free: {mend}"
        )
    if need.free < need.most * need.checkpoint:
        warning = (
            f"{counted(need.most, 'checkpoint')} at a time will take "
            f"{file_size(need.most * need.checkpoint)}, and {output_dir} has "
            f"{file_size(need.free)} free: {mend}, or lower --save_total_limit"
        )
        return [warning]
    return []


def _bytes(parts: Iterable[Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)
