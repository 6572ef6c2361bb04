"""Training: configuration, objective, trainer, checkpoints."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names
from kava.train.config import TrainConfig

if TYPE_CHECKING:
    from kava.train.kv_trainer import KVDistillTrainer

__all__ = ["KVDistillTrainer", "TrainConfig"]

__getattr__ = lazy_names(__name__, {"KVDistillTrainer": "kava.train.kv_trainer"})
