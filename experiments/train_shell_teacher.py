"""Train a built-in teacher of the shell game and put it into the package.

    python experiments/train_shell_teacher.py               # the Llama, kava/shell-teacher
    python experiments/train_shell_teacher.py --which gpt2  # the GPT-2, kava/shell-gpt2-teacher

Each recipe lies in configs/; a run is reproducible from its seed. A teacher is written only when
it is right on every form of the game that it was trained on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kava.cli import run
from kava.flags import Usage, check_fields, flag
from kava.flags.aliases import TRAINING
from kava.train.config import TrainConfig
from kava.train.flags import ConfigFile, config_of

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "src" / "kava" / "assets"
TEACHERS = {
    "llama": ("shell_game_teacher.yaml", "shell_teacher", ("compact", "verbose")),
    "gpt2": ("shell_game_gpt2_teacher.yaml", "shell_gpt2_teacher", ("compact",)),
}
"""Name → recipe, folder of the package, and the forms it has to know."""

REQUIRED = 0.99


@dataclass(kw_only=True)
class Which(ConfigFile):
    """Which of the teachers, beside the flags of its training."""

    which: str = flag("llama", "the teacher", choices=TEACHERS)

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="train_shell_teacher.py",
    kind=TrainConfig,
    beside=Which,
    summary="Train a built-in teacher of the shell game and put it into the package.",
    example="python experiments/train_shell_teacher.py --which gpt2",
    known=TRAINING,
)


def main(argv: list[str]) -> int:
    values = USAGE.read(argv)
    recipe, folder, forms = TEACHERS[values.pop("which", "llama")]
    config = config_of(USAGE, {"config": str(ROOT / "configs" / recipe), **values})

    from kava.commands.train import train
    from kava.data import load_records
    from kava.errors import KavaError
    from kava.models.quiet import quiet_libraries
    from kava.student.answering import answer_records
    from kava.student.checkpoint import load_student

    quiet_libraries()
    checkpoint = train(config)
    teacher = load_student(checkpoint)
    accuracy = {}
    for form in forms:
        records = load_records(f"kava/shell-game?form={form}", split="test")
        answers = answer_records(
            teacher.model, teacher.tokenizer, records, teacher.template, max_new_tokens=64
        )
        accuracy[form] = answers.accuracy
        print(f"{form}: {answers.accuracy:.1%} of {answers.num_items} held-out games")
    if min(accuracy.values()) < REQUIRED:
        raise KavaError(f"the teacher is right on {accuracy}, less than {REQUIRED:.0%}: not kept")
    assets = ASSETS / folder
    staging = assets.with_name(assets.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    teacher.model.save_pretrained(staging)
    teacher.tokenizer.save_pretrained(staging)
    about = {
        "recipe": recipe,
        "accuracy": accuracy,
        "data_hash": teacher.settings["data_hash"],
        "versions": teacher.settings["versions"],
    }
    (staging / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(assets, ignore_errors=True)
    os.replace(staging, assets)
    print(f"teacher: {assets}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
