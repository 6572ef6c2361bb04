"""What a run shows and writes while it trains: progress, the log line, metrics.jsonl."""

from __future__ import annotations

import json
import time
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
from kava.train.events import EventsWriter
from kava.train.guard import RunGuard
from kava.train.loss_line import log_line

METRICS_FILE = "metrics.jsonl"
CLOCK = "seconds"
"""The wall time of a row, since the run began."""


class ProgressAndLog(ProgressCallback):
    """A progress bar over the steps, and one line for every logging step and evaluation.

    Args:
        mode: the alignment mode, named in the line.
        bar: whether to draw the bar.
        guard: whose verdict an evaluation's line names.
    """

    def __init__(self, mode: str, bar: bool, guard: RunGuard):
        super().__init__()
        self.mode = mode
        self.bar = bar
        self.guard = guard

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the bar, from the step that the run goes on at."""
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
        """Close the bar of a run that has ended, or was ended."""
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


class MetricsFile(TrainerCallback):
    """Append every log to metrics.jsonl; a resumed run first goes back to its checkpoint's log."""

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / METRICS_FILE
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the rows that the checkpoint knows of, and go on with their clock.

        What was logged after the checkpoint is done again, and logged again. A row that the file
        lacks, since the run goes on in another folder, is taken from the checkpoint.
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(_line(row) + "\n" for row in rows))

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
            line = _line({"step": state.global_step, CLOCK: seconds, **logs})
            append_whole(self.path, line + "\n")

    def _lines(self) -> list[dict[str, Any] | None]:
        """The rows of the file; None for half a line, which a killed run may leave."""
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
    """The library's TensorBoard callback, for a run that may go on after a checkpoint.

    Args:
        output_dir: of the run; the events are in its folder `tensorboard`.
    """

    def __init__(self, output_dir: str | Path):
        super().__init__()
        self._SummaryWriter: type[Any] = EventsWriter
        self.logging_dir = str(Path(output_dir) / "tensorboard")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have TensorBoard leave out what earlier files say of steps that are done again."""
        if state.is_world_process_zero and self.tb_writer is None:
            again_from = state.global_step + 1 if state.global_step else 0
            self.tb_writer = self._SummaryWriter(self.logging_dir, purge_step=again_from)
        super().on_train_begin(args, state, control, **kwargs)


class LogAndEvaluateAtEnd(TrainerCallback):
    """Log and evaluate at the last step too, whatever logging_steps and eval_steps are."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the cadence of this run, which may save otherwise than the checkpoint's did."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for both at the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
