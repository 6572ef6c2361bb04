"""Stop a run at a signal: it finishes its step and saves a checkpoint of it.

SIGTERM, SIGUSR1, Ctrl-C and a closed terminal wait until the step is done (see `kava.stopping`).
The step is saved; an evaluation that is due is left to the resumed run, since a scheduler allows
only seconds. A running evaluation is stopped at once and repeated after the resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kava.stopping import Stopped, holding, interruptible, stop_requested


class StopAtSignal(TrainerCallback):
    """Save and stop after the step in which a signal came; must be the last callback.

    Args:
        output_dir: the run's folder.
        accelerator: asks the other processes of a distributed run.
        save: writes a checkpoint of the last completed step.
    """

    def __init__(self, output_dir: str | Path, accelerator: Accelerator, save: Callable[[], None]):
        self.output_dir = Path(output_dir)
        self.accelerator = accelerator
        self.save = save
        self.signum = 0
        self.state: TrainerState | None = None
        """The trainer state of the run; None before it starts."""
        self.is_training = False

    @contextmanager
    def after_step(self) -> Iterator[None]:
        """Train inside the block: a signal waits there until a step is saved.

        Raises:
            Stopped: a signal came; the message names the saved step, if any.
        """
        try:
            with holding():
                yield
        except Stopped as stop:
            saved = self._checkpoint
            if self.state is not None and saved is not None and saved.is_dir():
                stop.advice = f"step {self.state.global_step} is saved: {saved}"
            raise

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate inside the block: a signal ends it, and its step is saved.

        In a distributed run no process can stop alone.
        """
        if self.accelerator.num_processes > 1:
            yield
            return
        try:
            with interruptible():
                yield
        except Stopped:
            saved = self._checkpoint
            if self.is_training and saved is not None and not saved.is_dir():
                self.save()
            raise

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop if a signal came before the first step."""
        self.state, self.is_training = state, True
        self._ask()
        self._stop()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """If a signal has come, save the step without evaluating it."""
        self._ask()
        if self.signum:
            control.should_save = True
            control.should_evaluate = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop saving: what follows training is not part of a step."""
        self.is_training = False

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop once the step is saved."""
        self._stop()

    def _ask(self) -> None:
        """Whether a signal has come to any process; all processes get the same answer."""
        asked = torch.tensor([stop_requested() or 0])
        if self.accelerator.num_processes > 1:
            asked = self.accelerator.gather(asked.to(self.accelerator.device))
        self.signum = int(asked.max())

    def _stop(self) -> None:
        if self.signum:
            raise Stopped(self.signum)

    @property
    def _checkpoint(self) -> Path | None:
        """The checkpoint of the last completed step; None if there is none."""
        if self.state is None or not self.state.global_step:
            return None
        return self.output_dir / f"checkpoint-{self.state.global_step}"


def command_to_go_on(argv: list[str], program: str = "kava train") -> str:
    """The command line that resumes the run started by another one.

    Args:
        argv: the arguments of that command line.
        program: what stands before them.

    Example:
        >>> command_to_go_on(["--lr", "1e-3", "--overwrite", "--output_dir", "my runs/a"])
        "kava train --lr 1e-3 --output_dir 'my runs/a' --resume"
    """
    import shlex

    kept: list[str] = []
    left_out = False  # the flag before
    for token in argv:
        name = token.partition("=")[0]
        if left_out and not token.startswith("-"):
            left_out = False  # its value
            continue
        left_out = name in {"--overwrite", "--resume", "--resume_from"}
        if not left_out:
            kept.append(token)
        elif token != name:
            left_out = False  # --flag=value is whole
    return f"{program} {shlex.join([*kept, '--resume'])}"
