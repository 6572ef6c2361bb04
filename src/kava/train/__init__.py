"""Training: configuration, objective, trainer, checkpoints."""

from kava.train.config import TrainConfig
from kava.train.trainer import KVDistillTrainer

__all__ = ["KVDistillTrainer", "TrainConfig"]
