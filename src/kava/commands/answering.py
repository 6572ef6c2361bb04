"""Flags of the commands that let a student answer, and the student that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava import names
from kava.data_settings import CHAT_HELP, DataConfig
from kava.flags import again, check_fields, flag, needed
from kava.models.devices import (
    DEVICE_HELP,
    DTYPE_HELP,
    check_device_name,
    check_dtype_name,
    choose_device,
)
from kava.models.gguf import gguf_name

if TYPE_CHECKING:
    from kava.student.checkpoint import LoadedStudent


@dataclass(kw_only=True)
class AnsweringConfig:
    """How long an answer may be, and where the models are.

    Raises:
        ValueError: a value outside its range.
    """

    max_new_tokens: int | None = flag(
        None,
        "most tokens to generate per answer",
        least=1,
        unset="what the run evaluated with, else 32 for a latent student and 256 for a written one",
        group="answers",
    )
    chat_template: str = again(
        DataConfig, "chat_template", names.NO_CHAT, help=f"of a plain model: {CHAT_HELP}"
    )
    dtype: str = flag("auto", DTYPE_HELP, check=check_dtype_name, group="running")
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True)
class StudentConfig(AnsweringConfig):
    """One student, and how many questions it reads at a time.

    Raises:
        ValueError: a value outside its range.
    """

    checkpoint: str = needed(
        "a checkpoint, a run's output folder (its newest complete checkpoint), or a plain model: "
        "a folder, a built-in kava/ name or a hub id",
        positional=True,
    )
    gguf_file: str | None = flag(
        None,
        "of a plain model, the file in its folder in GGUF; the same as naming FOLDER/FILE.gguf",
        group="models",
    )
    best: bool = flag(
        False, "of an output folder, the checkpoint that the run found best", group="models"
    )
    batch_size: int = flag(
        64, "questions at a time", least=1, most=names.MOST_BATCH, group="running"
    )


def load(config: StudentConfig) -> LoadedStudent:
    """The student that is asked for, on its device.

    Raises:
        ValueError: no such checkpoint, or one that is not whole.
        OSError: files that cannot be read.
    """
    from kava.student.checkpoint import load_student
    from kava.student.settings import check_chat

    device = choose_device(config.device)
    student = load_student(
        gguf_name(config.checkpoint, config.gguf_file, "--gguf_file") or "",
        best=config.best,
        device=device,
        dtype=config.dtype,
        chat_template=config.chat_template,
    )
    check_chat(student.settings, student.path, config.chat_template)
    return student
