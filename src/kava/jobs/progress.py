"""Where jobs stand: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tqdm import tqdm

from kava.format import percent

LINE_EVERY_SECONDS = 30.0
_BAR = "{desc:<20.20}{percentage:3.0f}% |{bar}| {n_fmt:>5} of {total_fmt} {unit}{postfix}"
_TOTAL_BAR = _BAR + ", {elapsed} gone, {remaining} to go"


@dataclass
class _Shown:
    """A job at work, and its bar."""

    bar: Any
    place: int
    num_steps: int
    unit: str
    step: int
    spoken: float


class ProgressView:
    """One bar for all runs and one for each job that is at work; on stderr.

    Args:
        num_steps: training steps of all runs.
    """

    def __init__(self, num_steps: int):
        self.in_terminal = sys.stderr.isatty()
        self.shown: dict[str, _Shown] = {}
        self.total = self._bar("all runs", num_steps, "steps", 0, _TOTAL_BAR)

    def _bar(self, name: str, num_steps: int, unit: str, place: int, form: str) -> Any:
        return tqdm(
            total=num_steps,
            desc=name,
            unit=unit,
            bar_format=form,
            position=place,
            leave=False,
            disable=not self.in_terminal or num_steps == 0,
            dynamic_ncols=True,
            smoothing=0.02,
        )

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job in self.shown.values():
            job.bar.close()
        self.total.close()

    def say(self, line: str) -> None:
        """Print a line, above the bars where there are any."""
        tqdm.write(line, file=sys.stderr)

    def start(self, name: str, num_steps: int, unit: str) -> None:
        """A job begins."""
        taken = {job.place for job in self.shown.values()}
        place = min(set(range(1, len(taken) + 2)) - taken)
        bar = self._bar(name, num_steps, unit, place, _BAR)
        self.shown[name] = _Shown(bar, place, num_steps, unit, 0, time.monotonic())
        if not self.in_terminal:
            self.say(f"{name}: started")

    def step(self, name: str, step: int, accuracy: float | None = None) -> None:
        """A job has come to `step`; with an accuracy where it was just evaluated."""
        job = self.shown[name]
        if accuracy is not None:
            job.bar.set_postfix_str(f"accuracy {percent(accuracy)}")
        job.bar.update(step - job.step)
        if job.unit == "steps":
            self.total.update(step - job.step)
        job.step = step
        now = time.monotonic()
        if not self.in_terminal and now - job.spoken >= LINE_EVERY_SECONDS:
            job.spoken = now
            self.say(f"{name}: {step} of {job.num_steps} {job.unit}")

    def finish(self, name: str) -> None:
        """A job has ended, or failed; in either case nothing of it is left to do."""
        self.step(name, self.shown[name].num_steps)
        self.shown.pop(name).bar.close()
