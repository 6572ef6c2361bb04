"""What runs leave behind while they train: a line of numbers every few steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.demo.arms import Arm
from kava.demo.results import Result
from kava.inputs import whole_json_lines


@dataclass(frozen=True)
class RunLog:
    """A finished run and what it logged.

    Args:
        arm: its arm.
        result: what it gave.
        lines: of its metrics file.
    """

    arm: Arm
    result: Result
    lines: tuple[dict[str, Any], ...]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one quantity; empty where the run does not have it."""
        points = [(line["step"], line[name]) for line in self.lines if name in line]
        return [step for step, _ in points], [value for _, value in points]


def read_log(arm: Arm, result: Result, folder: Path) -> RunLog:
    """What a run left in its folder.

    Raises:
        OSError: the folder holds no metrics.
        ValueError: they are empty.
    """
    return RunLog(arm, result, read_lines(folder))


def read_lines(folder: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a run's metrics file.

    Raises:
        OSError: the folder holds no metrics.
        ValueError: they are empty.
    """
    from kava.train.callbacks import METRICS_FILE

    path = folder / METRICS_FILE
    lines = tuple(whole_json_lines(path))
    if not lines:
        raise ValueError(f"{path} is empty: the run logged nothing")
    return lines


def last_value(folder: Path, name: str) -> float | None:
    """The last that a run logged of one quantity; None where it does not have it."""
    values = [line[name] for line in read_lines(folder) if name in line]
    return float(values[-1]) if values else None
