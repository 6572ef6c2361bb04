"""`kava merge`: make an ordinary checkpoint of one with LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kava.commands.answering import StudentConfig
from kava.files.locks import lock_file
from kava.files.outputs import check_output_folder
from kava.files.write import naming, new_folder
from kava.flags import Usage, again, check_fields, needed
from kava.flags.aliases import ANSWERING
from kava.models.devices import DTYPE_HELP
from kava.models.quiet import quiet_libraries


@dataclass(kw_only=True)
class MergeConfig:
    """What `kava merge` is asked for.

    Raises:
        ValueError: a value outside its range.
    """

    checkpoint: str = needed(
        "a checkpoint with LoRA adapters, or a run's output folder (its newest complete "
        "checkpoint)",
        positional=True,
    )
    best: bool = again(StudentConfig, "best", False)
    output_dir: str = needed("folder to write; it must not be there", group="output")
    dtype: str = again(StudentConfig, "dtype", "auto", help=f"{DTYPE_HELP}; auto is float32")

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="kava merge",
    kind=MergeConfig,
    summary="Add a student's LoRA adapters to its model's weights, and write it whole.",
    example="kava merge outputs/run --output_dir outputs/merged",
    known=ANSWERING,
)


def main(argv: list[str]) -> int:
    """Write the merged student; nothing is left half-written."""
    config = USAGE.parse(argv)
    quiet_libraries()
    folder = Path(config.output_dir)
    check_output_folder(folder, "--output_dir")
    if folder.exists():
        raise ValueError(f"--output_dir {folder} is there already; name another folder")

    from kava.models.lora import has_lora, merge_lora
    from kava.student.checkpoint import load_student, save_student
    from kava.student.config import base_of
    from kava.student.manifest import write_manifest

    student = load_student(config.checkpoint, best=config.best, dtype=config.dtype)
    base = base_of(student.model)
    if not has_lora(base):
        raise ValueError(f"{student.path} has no LoRA adapters: it is whole already")
    merge_lora(base)
    with lock_file(folder, "kava merge"), new_folder(folder) as partial, naming(folder):
        save_student(partial, student.model, student.tokenizer, student.settings)
        write_manifest(partial)
    print(f"written to {folder}: {student.path} with its adapters merged")
    return 0
