"""`kava export`: write a trained student for other programs, and push it to the hub."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from kava.commands.answering import StudentConfig
from kava.files.outputs import check_output_folder
from kava.flags import Usage, again, check_fields, flag, needed
from kava.flags.aliases import EXPORTING
from kava.models.devices import DTYPE_HELP, check_dtype_name
from kava.models.quiet import quiet_libraries


@dataclass(kw_only=True)
class ExportConfig:
    """What `kava export` is asked for.

    Raises:
        ValueError: a value outside its range, or flags that do not go together.
    """

    checkpoint: str = needed(
        "a checkpoint, or a run's output folder (its newest complete checkpoint)", positional=True
    )
    best: bool = again(StudentConfig, "best", False)
    output_dir: str = needed("folder to write", group="output")
    overwrite: bool = flag(False, "replace an exported student that output_dir holds")
    dtype: str = flag(
        "auto",
        DTYPE_HELP + "; another than the checkpoint's changes answers",
        check=check_dtype_name,
    )
    push: str | None = flag(
        None, "also push the folder to this repository of the Hugging Face hub, user/name"
    )
    private: bool = flag(False, "with --push, a repository that is made is private")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.private and self.push is None:
            raise ValueError("--private is read by --push alone: pass it too")


USAGE = Usage(
    prog="kava export",
    kind=ExportConfig,
    summary="Write a trained student for other programs, with its model card.",
    example="kava export outputs/run --output_dir exported",
    known=EXPORTING,
)


def main(argv: list[str]) -> int:
    """Export a student, and push the folder if that is asked for."""
    config = USAGE.parse(argv)
    quiet_libraries()
    folder = Path(config.output_dir)
    check_output_folder(folder, "--output_dir")

    from kava.share.folder import check_target, export_student
    from kava.share.hub import check_push, push
    from kava.student.checkpoint import load_student

    check_target(folder, overwrite=config.overwrite)
    if config.push is not None:
        check_push(config.push)
    student = load_student(config.checkpoint, best=config.best, dtype=config.dtype)
    export_student(
        student,
        folder,
        name=config.push or folder.resolve().name,
        command=shlex.join(["kava", "export", *argv]),
        overwrite=config.overwrite,
        ask_hub=config.push is not None,
    )
    print(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if config.push is not None:
        print(f"pushed to  {push(folder, config.push, private=config.private)}")
    return 0
