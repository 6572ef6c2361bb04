"""The flags of `kava train`, one file for each heading of `kava train --help`."""

from kava.train.settings.data import DataSettings
from kava.train.settings.losses import LossSettings
from kava.train.settings.models import ModelSettings
from kava.train.settings.optimisation import OptimisationSettings
from kava.train.settings.run import RunSettings
from kava.train.settings.target import TargetSettings

__all__ = [
    "DataSettings",
    "LossSettings",
    "ModelSettings",
    "OptimisationSettings",
    "RunSettings",
    "TargetSettings",
]
