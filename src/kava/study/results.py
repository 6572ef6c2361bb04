"""What a run of a study writes down of its answers and its metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.files.write import write_whole
from kava.study.folder import CALIBRATION_FILE

if TYPE_CHECKING:
    from kava.fit.aligner import CalibrationReport
    from kava.student.answering import Answers
    from kava.train.config import TrainConfig


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the file is whole or absent."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_calibrations(
    folder: Path, config: TrainConfig, reports: Sequence[CalibrationReport]
) -> None:
    """How well the map of each teacher fits; of several teachers one file each."""
    from kava.train.teacher_names import teachers_of

    for teacher, report in zip(teachers_of(config), reports):
        name = CALIBRATION_FILE
        if config.several:
            name = name.replace(".json", f"-{teacher.label}.json")
        write_whole(folder / name, report.to_json() + "\n")


def num_parameters(model: Any) -> int:
    """Of the student, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def write_items(path: Path, answers: Answers) -> None:
    """One line per item, as `kava evaluate --output` writes them."""
    lines = (json.dumps(item.as_row(), ensure_ascii=False) + "\n" for item in answers.items)
    write_whole(path, "".join(lines))


def scores_of(answers: Answers) -> dict[str, Any]:
    """How many answers are right."""
    return {
        "accuracy": answers.accuracy,
        "num_items": answers.num_items,
        "num_correct": answers.num_correct,
    }


def cost_of(answers: Answers) -> dict[str, Any]:
    """What an answer costs."""
    return {
        "forward_passes": answers.forward_passes,
        "num_tokens": answers.num_tokens,
        "seconds_per_answer": answers.seconds_per_answer,
    }


def last_of(lines: list[dict[str, Any]]) -> dict[str, float | None]:
    """What the last evaluation measured of the caches, from a run's lines of metrics."""
    names = ("kv", "kv_wrong_sample", "cka_keys", "cka_values", "attention_entropy")
    evaluations = [line for line in lines if "eval_ce" in line]
    found = evaluations[-1] if evaluations else {}
    return {name: found.get(f"eval_{name}") for name in names}
