"""What a run shows and writes while it trains: progress, the log line, metrics.jsonl."""

from __future__ import annotations

import json
import os
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

METRICS_FILE = "metrics.jsonl"


def log_line(step: int, logs: dict[str, float], mode: str) -> str:
    """The line that a logging step prints.

    Example:
        >>> log_line(10, {"loss": 2.5, "ce": 2.0, "kv": 0.5, "codi": 0.3}, "structured")
        'Step 10: loss=2.5, CE=2, KV=0.5, CODI=0.3 [Mode: structured]'
    """
    names = {"loss": "loss", "ce": "CE", "kv": "KV", "codi": "CODI"}
    terms = ", ".join(f"{label}={logs.get(name, 0.0):.4g}" for name, label in names.items())
    return f"Step {step}: {terms} [Mode: {mode}]"


class ProgressAndLog(ProgressCallback):
    """A progress bar over the steps, and one line for every logging step and evaluation.

    Args:
        mode: the alignment mode, named in the line.
        bar: whether to draw the bar.
    """

    def __init__(self, mode: str, bar: bool):
        super().__init__()
        self.mode = mode
        self.bar = bar

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
            parts = (f"{name}={shown[name]:.4g}" for name in names if name in shown)
            tqdm.write(f"Evaluation at step {state.global_step}: {', '.join(parts)}")


class MetricsFile(TrainerCallback):
    """Append every log to metrics.jsonl; a resumed run first drops what it will do again."""

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / METRICS_FILE
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the lines up to the step that the run goes on from, and their clock."""
        if not state.is_world_process_zero:
            return
        kept = []
        gone = 0.0
        if state.global_step and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                # a killed run may leave half a line; its step is done again
                if line.endswith("}") and json.loads(line)["step"] <= state.global_step:
                    kept.append(line + "\n")
                    gone = json.loads(line)["seconds"]
        self.started = time.monotonic() - gone
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self.path)

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
            line = {"step": state.global_step, "seconds": seconds, **logs}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def tensorboard(output_dir: str | Path) -> TensorBoardCallback:
    """The library's TensorBoard callback, writing into the run's own folder."""
    callback = TensorBoardCallback()
    callback.logging_dir = str(Path(output_dir) / "tensorboard")
    return callback


class LogAndEvaluateAtEnd(TrainerCallback):
    """Log and evaluate at the last step too, whatever logging_steps and eval_steps are."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for both at the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
