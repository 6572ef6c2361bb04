"""Train the built-in teacher of the shell game and put it into the package.

    python experiments/train_shell_teacher.py

The recipe is configs/shell_game_teacher.yaml; the run is reproducible from its seed. The teacher
is written only when it is right on both forms of the game.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from kava.cli import run

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "src" / "kava" / "assets" / "shell_teacher"
REQUIRED = 0.99


def main(argv: list[str]) -> int:
    from kava.data import load_records
    from kava.errors import KavaError
    from kava.quiet import quiet_libraries
    from kava.student.answering import answer_records
    from kava.student.checkpoint import load_student
    from kava.train.command import train
    from kava.train.config import parse_config

    quiet_libraries()
    recipe = ROOT / "configs" / "shell_game_teacher.yaml"
    config = parse_config(["--config", str(recipe), *argv])
    checkpoint = train(config)
    teacher = load_student(checkpoint)
    accuracy = {}
    for form in ("compact", "verbose"):
        records = load_records(f"kava/shell-game?form={form}", split="test")
        answers = answer_records(teacher.model, teacher.tokenizer, records, teacher.template)
        accuracy[form] = answers.accuracy
        print(f"{form}: {answers.accuracy:.1%} of {answers.num_items} held-out games")
    if min(accuracy.values()) < REQUIRED:
        raise KavaError(f"the teacher is right on {accuracy}, less than {REQUIRED:.0%}: not kept")
    staging = ASSETS.with_name(ASSETS.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    teacher.model.save_pretrained(staging)
    teacher.tokenizer.save_pretrained(staging)
    about = {
        "recipe": recipe.name,
        "accuracy": accuracy,
        "data_hash": teacher.settings["data_hash"],
        "versions": teacher.settings["versions"],
    }
    (staging / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(ASSETS, ignore_errors=True)
    os.replace(staging, ASSETS)
    print(f"teacher: {ASSETS}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
