"""transformers' `Trainer` with checkpoints that are complete or absent, and exact resuming.

A checkpoint is written before the evaluation of its step, and the evaluation is added to it later:
a failed evaluation loses no step. A resumed run ends like an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from tqdm.auto import tqdm
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput

from kava.data.records import Template
from kava.errors import KavaError
from kava.inputs import whole_json_lines
from kava.models.weights import check_finite
from kava.names import METRICS_FILE
from kava.student.whole import STATE_FILE
from kava.train.averages import mean_loss
from kava.train.callbacks import ProgressAndLog
from kava.train.checkpoint import CheckpointWriter, settings_of
from kava.train.config import TrainConfig
from kava.train.guard import RunGuard
from kava.train.limits import num_update_steps
from kava.train.loading import load_checkpoint
from kava.train.objective import Distiller
from kava.train.recording import Recorder
from kava.train.resume import machine_of
from kava.train.sharded import ShardableTrainer, shards_of
from kava.train.stop import StopAtSignal


class ResumableTrainer(ShardableTrainer):
    """transformers' trainer with KaVa's saving and resuming.

    Attributes:
        config: the run's configuration.
        template: the template that turns records into text.
        data_hash: hash of the training records, stored in every checkpoint.
        recorder: records what the run consumes.
        guard: the collapse guard; its verdict is stored in checkpoints.
        progress: the bar and the log lines.
        stop: stops the run at a signal.
        writer: writes the checkpoints.
    """

    model: Distiller
    config: TrainConfig
    template: Template
    data_hash: str
    recorder: Recorder
    guard: RunGuard
    progress: ProgressAndLog
    stop: StopAtSignal
    writer: CheckpointWriter

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log, save and evaluate, in this order: a failed evaluation loses no step."""
        evaluates, saves = self.control.should_evaluate, self.control.should_save
        self.control.should_evaluate = False
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self.control.should_evaluate = evaluates
        if evaluates:
            super()._maybe_log_save_evaluate(*args, **kwargs)
            if saves:
                self.writer.add_evaluation(self.state, self.guard.state())

    def make_up_evaluation(self) -> None:
        """Evaluate at the step of the checkpoint, whose evaluation was interrupted."""
        metrics = self._evaluate(None, None)
        self._determine_best_metric(metrics, None)
        self.writer.add_evaluation(self.state, self.guard.state())

    def evaluation_is_due(self, state: TrainerState) -> bool:
        """Whether the evaluation of a checkpoint's step is missing in its log."""
        step = state.global_step
        if self.args.eval_strategy == "no" or not step:
            return False
        due = step % self.config.eval_steps == 0 or step >= state.max_steps
        return due and not any("eval_loss" in r and r["step"] == step for r in state.log_history)

    def _say_verdict(self) -> None:
        sentence = self.guard.last_word()
        if sentence is not None and self.is_world_process_zero():
            tqdm.write("guard: " + sentence.replace("\n", "\n       "))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with a rate of its own for what is trained beside the language model."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self.config.lr_projector is not None:
            base = self.accelerator.unwrap_model(self.model).base
            own = {id(part) for part in base.parameters()}
            optimizer.param_groups = list(
                _split_rates(optimizer.param_groups, own, self.config.lr_projector)
            )
        return optimizer

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.writer.run_dir)

    def _check_weights(self) -> None:
        """Refuse to save weights that became NaN or infinite in the last step.

        Raises:
            KavaError: such weights; earlier checkpoints are kept.
        """
        try:
            check_finite(self.accelerator.unwrap_model(self.model).named_parameters(), "student")
        except ValueError as error:
            raise KavaError(
                f"step {self.state.global_step} left weights that are not finite, and they are "
                f"not saved; lower --lr (earlier checkpoints are intact)"
            ) from error

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_weights()
        with self.writer.staged(self.state):
            super()._save_checkpoint(model, trial)
            shares = gather_object([self.recorder.share()])
            if self.args.should_save:
                folder = self.writer.run_dir / f"checkpoint-{self.state.global_step}"
                self.recorder.save(folder, shares, self.guard.state())

    def _save_step(self) -> None:
        self._save_checkpoint(self.model, None)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if self.args.should_save:
            self.writer.write_model(
                output_dir or self.config.output_dir,
                self.accelerator.unwrap_model(self.model),
                self.processing_class,  # type: ignore[arg-type]
                settings_of(
                    self.config,
                    step=self.state.global_step,
                    template=self.template,
                    data_hash=self.data_hash,
                    machine=machine_of(self.args.device, self.args.world_size),
                ),
                state_dict,
            )

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train to the end, and print the guard's verdict.

        From a checkpoint of the last step nothing is trained. If the run was killed at its end, the
        missing log rows are written.

        Raises:
            Stopped: a signal came; the last completed step is saved.
        """
        if isinstance(resume_from_checkpoint, str):
            state = self._state_of(resume_from_checkpoint)
            if self._is_over(state):
                self._load_from_checkpoint(resume_from_checkpoint)
                state.is_local_process_zero = self.is_local_process_zero()
                state.is_world_process_zero = self.is_world_process_zero()
                self.state = state
                self._say_verdict()
                return TrainOutput(state.global_step, mean_loss(state.log_history) or 0.0, {})
            if self.is_fsdp_enabled:  # before the weights are shared out
                load_checkpoint(resume_from_checkpoint, self.model)
        try:
            with self.stop.after_step():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.progress.close()
        self._say_verdict()
        return output

    @property
    def total_steps(self) -> int:
        """The optimiser steps of the whole run."""
        # a stream has no length, and its run has a number of steps
        num_samples = 0 if self.config.streaming else len(self.train_dataset)  # type: ignore[arg-type]
        return num_update_steps(self.config, num_samples, self.args.world_size)

    def is_finished(self, checkpoint: str | Path) -> bool:
        """Whether a checkpoint is the end of its run, with nothing left to train or log."""
        return self._is_over(self._state_of(checkpoint))

    def _is_over(self, state: TrainerState) -> bool:
        # the run may be longer than the one that wrote the checkpoint
        ended = state.global_step >= self.total_steps and not self.evaluation_is_due(state)
        return ended and self._has_last_row()

    def _state_of(self, checkpoint: str | Path) -> TrainerState:
        return TrainerState.load_from_json(f"{checkpoint}/{STATE_FILE}")

    def _has_last_row(self) -> bool:
        """Whether the metrics end with the row of the whole run, logged after the last
        checkpoint."""
        path = Path(self.config.output_dir) / METRICS_FILE
        return path.is_file() and any("train_loss" in row for row in whole_json_lines(path))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers would train one more step when resumed at the last
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not shards_of(self.model):
            load_checkpoint(resume_from_checkpoint, self.accelerator.unwrap_model(self.model))
        args = self.args
        self.guard.restore(
            self.recorder.load(resume_from_checkpoint, args.process_index, args.world_size)
        )


def _split_rates(
    groups: Iterable[dict[str, Any]], own: Collection[int], rate: float
) -> Iterator[dict[str, Any]]:
    """An optimiser's groups, those parameters apart that are not in `own`, which get `rate`."""
    for group in groups:
        for inside in (True, False):
            parts = [part for part in group["params"] if (id(part) in own) == inside]
            if parts:
                yield {**group, "params": parts, **({} if inside else {"lr": rate})}
