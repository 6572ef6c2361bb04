"""Progress bar, log lines and metrics.jsonl of a training run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from kava.files.write import append_whole, write_whole
from kava.losses.reading import reading_numbers, reading_of
from kava.names import METRICS_FILE, TENSORBOARD_FOLDER
from kava.train.events import EventsWriter
from kava.train.guard import RunGuard
from kava.train.loss_line import log_line

CLOCK = "seconds"
"""Key of a row's wall time since the start of the run."""


class ProgressAndLog(ProgressCallback):
    """A progress bar over the steps, and one line per logging step and evaluation.

    Args:
        mode: the alignment mode, printed in the line.
        bar: whether to draw the bar.
        guard: the collapse guard; an evaluation's line prints its verdict.
    """

    def __init__(self, mode: str, bar: bool, guard: RunGuard):
        super().__init__()
        self.mode = mode
        self.bar = bar
        self.guard = guard

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the bar, starting at the step that the run resumes from."""
        if state.is_world_process_zero and self.bar:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )
        self.current_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        if self.training_bar is not None:
            self.training_bar.update(state.global_step - self.current_step)
            self.current_step = state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar of a run that finished or was stopped."""
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the line."""
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            tqdm.write(log_line(state.global_step, logs, self.mode))
        elif "eval_ce" in logs:
            shown = {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}
            names = ("accuracy", "ce", "kv", "kv_wrong_sample", "erank_student", "erank_target")
            parts = [f"{name}={shown[name]:.4g}" for name in names if name in shown]
            short = self.guard.in_short()
            if short is not None:
                parts.append(f"guard={short}")
            tqdm.write(f"Evaluation at step {state.global_step}: {', '.join(parts)}")
            reading = reading_of(logs)
            if reading:
                tqdm.write(f"  {reading_numbers(reading)}")


class MetricsFile(TrainerCallback):
    """Append every log to metrics.jsonl; a resumed run first goes back to its checkpoint's log.

    A run that starts anew leaves the file of an earlier one as it is until its first step is done:
    what the first batch is refused for costs nothing.
    """

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / METRICS_FILE
        self.started = time.monotonic()
        self._waiting: str | None = None
        """What the file will hold after the first step; None once it is written."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the rows up to the checkpoint, and continue their clock.

        Steps after the checkpoint are trained and logged again. If the run resumes in another
        folder, missing rows are taken from the checkpoint.
        """
        if not state.is_world_process_zero:
            return
        there = self._lines() if state.log_history else []
        there += [None] * len(state.log_history)
        rows = [
            line if line is not None and _values(line) == _values(row) else {CLOCK: None, **row}
            for line, row in zip(there, state.log_history)
        ]
        self.started = time.monotonic() - max((row[CLOCK] or 0.0 for row in rows), default=0.0)
        self._waiting = "".join(_line(row) + "\n" for row in rows)
        if state.global_step:
            self._write()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the file, after the first step."""
        if state.is_world_process_zero:
            self._write()

    def _write(self) -> None:
        if self._waiting is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, self._waiting)
            self._waiting = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            seconds = round(time.monotonic() - self.started, 3)
            state.log_history[-1][CLOCK] = seconds  # for a run that goes on in another folder
            line = _line({"step": state.global_step, CLOCK: seconds, **logs}) + "\n"
            if self._waiting is None:
                append_whole(self.path, line)
            else:
                self._waiting += line

    def _lines(self) -> list[dict[str, Any] | None]:
        """The rows of the file; None for an incomplete line, which a killed run may leave."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) if line.endswith("}") else None for line in lines]


def _values(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != CLOCK}


def _line(row: dict[str, Any]) -> str:
    first = {"step": row["step"], CLOCK: row[CLOCK]}
    return json.dumps({**first, **row})


class TensorBoardFile(TensorBoardCallback):
    """transformers' TensorBoard callback, for a run that may be resumed.

    A run that starts anew writes nothing before its first step is done, as `MetricsFile` does.

    Args:
        output_dir: the run's folder; events are written to its subfolder `tensorboard`.
    """

    def __init__(self, output_dir: str | Path):
        super().__init__()
        self._SummaryWriter: type[Any] = EventsWriter
        self.logging_dir = str(Path(output_dir) / TENSORBOARD_FOLDER)
        self._waiting: list[Callable[[], None]] = []
        """What is written after the first step."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have TensorBoard leave out what earlier files say of steps that are done again."""
        begin = partial(self._begin, args, copy(state), control, **kwargs)
        if state.global_step:
            begin()
        else:
            self._waiting = [begin]

    def _begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self.tb_writer is None:
            again_from = state.global_step + 1 if state.global_step else 0
            self.tb_writer = self._SummaryWriter(self.logging_dir, purge_step=again_from)
        super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the file, after the first step."""
        waiting, self._waiting = self._waiting, []
        for write in waiting:
            write()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the values of a log."""
        write = partial(super().on_log, args, copy(state), control, logs=logs, **kwargs)
        if self._waiting:
            self._waiting.append(write)
        else:
            write()


class AfterFirstStep(TrainerCallback):
    """What replaces an earlier run's files waits here until the first step is done.

    Args:
        do: each is called once, after the first step and before it is logged or saved.
    """

    def __init__(self, *do: Callable[[], None]):
        self.do = [*do]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do it."""
        waiting, self.do = self.do, []
        for one in waiting:
            one()


class LogAndEvaluateAtEnd(TrainerCallback):
    """Also log and evaluate at the last step, whatever logging_steps and eval_steps are."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Use this run's intervals, which may differ from those of the checkpoint's run."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Request both at the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
