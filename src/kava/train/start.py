"""The earlier run's student that a run starts from (`--start_from`)."""

from __future__ import annotations

from transformers import PreTrainedModel

from kava.student.checkpoint import find_student
from kava.student.settings import read_settings
from kava.train.loading import load_student_weights
from kava.train.settings import Settings


def check_start(config: Settings) -> None:
    """Refuse a start that is no student of the run's kind, from its files alone.

    Raises:
        OSError: no such student.
        ValueError: a damaged one, or one of another kind.
    """
    if not _starts(config):
        return
    assert config.start_from is not None
    try:
        kind = read_settings(find_student(config.start_from))["student"]
        if kind != config.student:
            raise ValueError(f"it holds a student that is {kind}; pass --student {kind}")
    except (OSError, ValueError) as error:
        raise type(error)(f"--start_from {config.start_from}: {error}") from error


def load_start(config: Settings, student: PreTrainedModel) -> None:
    """Give a student the weights that `--start_from` names, if it does.

    Raises:
        OSError: no such student.
        ValueError: one of another model or number of placeholders.
    """
    if not _starts(config):
        return
    assert config.start_from is not None
    try:
        load_student_weights(find_student(config.start_from), student)
    except (OSError, ValueError) as error:
        raise type(error)(f"--start_from {config.start_from}: {error}") from error


def _starts(config: Settings) -> bool:
    # the weights of a run that goes on are those of its checkpoint
    return config.start_from is not None and not config.resume and config.resume_from is None
