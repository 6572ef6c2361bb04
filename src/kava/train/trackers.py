"""The trackers of `--report_to`: callbacks of transformers, such as Weights & Biases'."""

from __future__ import annotations

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from kava.names import OWN_TRACKERS
from kava.train.config import TrainConfig


def trackers_of(config: TrainConfig) -> tuple[TrainerCallback, ...]:
    """The callbacks of the trackers that a run reports to, besides its own files.

    Raises:
        ValueError: a tracker whose library is not installed.

    Example:
        >>> trackers_of(TrainConfig(report_to=["tensorboard"]))
        ()
    """
    found = []
    for name in config.report_to or ():
        if name in OWN_TRACKERS:
            continue
        (kind,) = get_reporting_integration_callbacks([name])
        try:
            found.append(kind())
        except (RuntimeError, ImportError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"--report_to {name}: {reason}") from error
    return tuple(found)
