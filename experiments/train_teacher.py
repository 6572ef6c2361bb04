"""Train a built-in teacher of a built-in task and put it into the package.

    python experiments/train_teacher.py --which shell       # kava/shell-teacher, a Llama
    python experiments/train_teacher.py --which shell_gpt2  # kava/shell-gpt2-teacher, a GPT-2
    python experiments/train_teacher.py --which word        # kava/word-teacher, a Llama
    python experiments/train_teacher.py --which word_adder       # kava/word-adder, a Llama
    python experiments/train_teacher.py --which word_multiplier  # kava/word-multiplier, a GPT-NeoX
    python experiments/train_teacher.py --which word_neox   # kava/word-neox-teacher, a GPT-NeoX

Each recipe lies in configs/; a run is reproducible from its seed. A teacher is written only when
it is right often enough on test problems, in every form that it was trained on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kava.cli import run
from kava.flags import Usage, check_fields, flag
from kava.flags.aliases import TRAINING
from kava.train.config import TrainConfig
from kava.train.flags import ConfigFile, config_of

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "src" / "kava" / "assets"


class Teacher(NamedTuple):
    """What a teacher is made by, and what it has to know.

    Attributes:
        recipes: files in configs/; each goes on with the model of the one before it.
        tests: the data that it is tested on, by the form of their reasoning.
        required: the least accuracy on each, from 0 to 1.
    """

    recipes: tuple[str, ...]
    tests: dict[str, str]
    required: float


def _tests(task: str, *forms: str) -> dict[str, str]:
    return {form: f"{task}?form={form}" for form in forms}


TEACHERS = {
    "shell": Teacher(
        recipes=("shell_game_teacher.yaml",),
        tests=_tests("kava/shell-game", "compact", "verbose"),
        required=0.99,
    ),
    "shell_gpt2": Teacher(
        recipes=("shell_game_gpt2_teacher.yaml",),
        tests=_tests("kava/shell-game", "compact"),
        required=0.99,
    ),
    "word": Teacher(
        recipes=("word_problems_sums.yaml", "word_problems_teacher.yaml"),
        tests=_tests("kava/word-problems", "compact", "equations"),
        required=0.97,
    ),
    "word_neox": Teacher(
        recipes=("word_problems_neox_sums.yaml", "word_problems_neox_teacher.yaml"),
        tests=_tests("kava/word-problems", "compact", "equations"),
        required=0.97,
    ),
    "word_adder": Teacher(
        recipes=("word_problems_adder_sums.yaml", "word_problems_adder_teacher.yaml"),
        tests={"additive": "kava/word-problems?operations=additive"},
        # one of two experts: it has to be right on its part, and need not be the best teacher of it
        required=0.94,
    ),
    "word_multiplier": Teacher(
        recipes=("word_problems_multiplier_sums.yaml", "word_problems_multiplier_teacher.yaml"),
        tests={"multiplicative": "kava/word-problems?operations=multiplicative"},
        required=0.97,
    ),
}
"""Name, as in the package's folder `NAME_teacher`, → how it is made."""


@dataclass(kw_only=True)
class Which(ConfigFile):
    """Which of the teachers, beside the flags of its training."""

    which: str = flag("shell", "the teacher", choices=TEACHERS)

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="train_teacher.py",
    kind=TrainConfig,
    beside=Which,
    summary="Train a built-in teacher of a built-in task and put it into the package.",
    example="python experiments/train_teacher.py --which word",
    known=TRAINING,
)


def main(argv: list[str]) -> int:
    values = USAGE.read(argv)
    which = values.pop("which", "shell")
    teacher = TEACHERS[which]

    from kava.commands.train import train
    from kava.data import load_records
    from kava.errors import KavaError
    from kava.models.quiet import quiet_libraries
    from kava.student.answering import answer_records
    from kava.student.checkpoint import load_student

    quiet_libraries()
    checkpoint = None
    for stage, recipe in enumerate(teacher.recipes, start=1):
        config = config_of(USAGE, {"config": str(ROOT / "configs" / recipe), **values})
        config.output_dir = f"{config.output_dir}/stage-{stage}"
        config.model_name = config.model_name if checkpoint is None else str(checkpoint)
        checkpoint = train(config)
    assert checkpoint is not None
    student = load_student(checkpoint)
    accuracy = {}
    for form, data in teacher.tests.items():
        answers = answer_records(
            student.model,
            student.tokenizer,
            load_records(data, split="test"),
            student.template,
            max_new_tokens=64,
        )
        accuracy[form] = answers.accuracy
        print(f"{form}: {answers.accuracy:.1%} of {answers.num_items} test problems")
        for steps, (right, total) in answers.by_num_steps.items():
            print(f"  {steps} steps: {right / total:.1%} of {total}")
    if min(accuracy.values()) < teacher.required:
        raise KavaError(
            f"the teacher is right on {accuracy}, less than {teacher.required:.0%}: not kept"
        )
    assets = ASSETS / f"{which}_teacher"
    staging = assets.with_name(assets.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    student.model.save_pretrained(staging)
    student.tokenizer.save_pretrained(staging)
    about = {
        "recipes": teacher.recipes,
        "accuracy": accuracy,
        "data_hash": student.settings["data_hash"],
        "versions": student.settings["versions"],
    }
    (staging / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(assets, ignore_errors=True)
    os.replace(staging, assets)
    print(f"teacher: {assets}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
