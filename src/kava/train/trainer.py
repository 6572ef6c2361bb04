"""The trainer: transformers' `Trainer` with the distillation objective, and safe checkpoints.

The loop, the schedule, mixed precision, distribution and resuming are those of transformers. Added
here: loss terms normalised over the whole accumulated batch, an error that names the batch when a
loss is not finite, evaluation with the wrong-sample control, and checkpoints that are complete or
absent, written before the evaluation of their step, from which a run resumes exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.data.neighbours import with_neighbours
from kava.data.records import Record, Template
from kava.data.splits import unique_questions
from kava.errors import KavaError
from kava.losses import TrainingProgress
from kava.ranks import Ranks
from kava.student.answering import Answers, answer_records
from kava.train.answers import guessing_share, judge_answers
from kava.train.arguments import training_arguments
from kava.train.averages import mean_loss
from kava.train.callbacks import (
    AfterFirstStep,
    LogAndEvaluateAtEnd,
    MetricsFile,
    ProgressAndLog,
    TensorBoardFile,
)
from kava.train.checkpoint import CheckpointWriter
from kava.train.config import TrainConfig
from kava.train.further import ComputeMetrics, further_metrics
from kava.train.guard import MakeUpEvaluation, RunGuard
from kava.train.held_out import held_out_losses, losses_on_training_samples
from kava.train.items import count_items
from kava.train.objective import Distiller
from kava.train.precision import MIN_LOSS_SCALE
from kava.train.processes import Samples, share_batches, share_questions
from kava.train.randomness import random_states_kept
from kava.train.recording import Recorder, RunRecord, peak_memory_bytes
from kava.train.resumable import ResumableTrainer
from kava.train.routing import groups_of
from kava.train.sharded import with_all_weights
from kava.train.stop import StopAtSignal
from kava.train.streaming import StreamedSamples


class RunTrainer(ResumableTrainer):
    """Train a student on a teacher's key/value cache.

    Args:
        distiller: student, aligner and losses.
        config: the run's configuration.
        tokenizer: the student's tokenizer.
        template: the template that turns records into text.
        train_data: encoded training samples, or a stream of them.
        eval_data: encoded held-out samples, for losses and the collapse guard.
        eval_records: the same samples as records, for accuracy.
        data_hash: hash of the training records, stored in every checkpoint.
        teacher_pad_token_id: padding token of a teacher with its own tokenizer.
        pad_token_ids: padding tokens of several teachers.
        callbacks: further callbacks.
        compute_metrics: further metrics of an evaluation, from the generated answers.

    Raises:
        KavaError: a loss or a gradient that is not finite, naming the batch.
        OSError: a checkpoint could not be written; earlier ones are intact.
    """

    def __init__(
        self,
        distiller: Distiller,
        config: TrainConfig,
        *,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        train_data: Sequence[Encoded] | StreamedSamples,
        eval_data: Sequence[Encoded] = (),
        eval_records: Sequence[Record] = (),
        data_hash: str = "",
        teacher_pad_token_id: int | None = None,
        pad_token_ids: tuple[int | None, ...] = (),
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
        compute_metrics: ComputeMetrics | None = None,
    ):
        self.config = config
        self.template = template
        self.eval_records = list(eval_records)
        self.questions = unique_questions(eval_records)
        self.data_hash = data_hash
        self._ids: list[str] = []
        self.recorder = Recorder(explicit=config.student == "explicit")
        pad = tokenizer.pad_token_id
        assert isinstance(pad, int)
        if config.wrong_sample and not isinstance(train_data, StreamedSamples):
            train_data, eval_data = with_neighbours(train_data), with_neighbours(eval_data)
        super().__init__(
            model=distiller,
            args=training_arguments(config, bool(eval_data), bool(eval_data and eval_records)),
            train_dataset=train_data
            if isinstance(train_data, StreamedSamples)
            else Samples(train_data),
            eval_dataset=list(eval_data) or None,
            data_collator=Collator(  # type: ignore[arg-type]
                pad, teacher_pad_token_id, pad_token_ids=pad_token_ids
            ),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=[
                MetricsFile(config.output_dir),
                TensorBoardFile(config.output_dir),
                LogAndEvaluateAtEnd(),
                self.recorder,
                *callbacks,  # type: ignore[list-item]
            ],
        )
        # the loss is already divided by counts of the whole accumulated batch
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.guard = RunGuard(config, distiller.matching.guard_loss)
        bar = not config.no_progress
        self.progress = ProgressAndLog(config.alignment_mode, bar, self.guard)
        self.add_callback(self.progress)
        distiller.move_teacher(self.args.device)
        looks = self._log_held_out if config.trains_target and eval_data else None
        self.add_callback(
            MakeUpEvaluation(
                self.evaluate if config.eval_first and eval_data else looks,
                self.evaluation_is_due,
                self.make_up_evaluation,
            )
        )
        self.stop = StopAtSignal(config.output_dir, self.accelerator, self._save_step)
        self.add_callback(self.stop)
        self.writer = CheckpointWriter(
            config.output_dir,
            config.save_total_limit,
            saves=self.args.should_save,
            accelerator=self.accelerator,
        )
        self.after_first_step = AfterFirstStep(self.writer.clear)
        self.add_callback(self.after_first_step)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The training data, of which the processes share every batch."""
        loader = super().get_train_dataloader()
        share_batches(loader, self.args.world_size, self.args.process_index)
        return loader

    def _get_num_items_in_batch(
        self, batch_samples: list[Batch], device: torch.device
    ) -> Tensor | None:
        """[6] counts of `Items` over all micro-batches of all processes."""
        if not batch_samples:
            return None
        counts = torch.tensor([count_items(batch, self.config) for batch in batch_samples])
        total = counts.sum(0, keepdim=True).to(device)
        return self.accelerator.gather(total).sum(0).clamp(min=1).float()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one micro-batch; raises an error if it is not finite."""
        self._ids = inputs["ids"]
        self._tell_progress()
        try:
            forward = model(inputs, num_items_in_batch)
        except ValueError as error:
            raise KavaError(f"{error} ({self._where()})") from error
        if not torch.isfinite(forward.loss):
            raise KavaError(self._not_finite(f"the loss is {forward.loss.item()}"))
        terms = {"loss": forward.loss, **forward.metrics}
        # distributed training averages gradients; the counts already cover all processes
        factor = self.accelerator.num_processes
        if inputs.get("counts", True):
            self.recorder.consume(inputs)
        else:
            terms, factor = {name: 0.0 * term for name, term in terms.items()}, 0
        self.recorder.averages.add(terms)
        loss = forward.loss * factor
        return (loss, forward) if return_outputs else loss

    def _tell_progress(self) -> Distiller:
        """Set the progress of the run for the loss schedules, also after a resume."""
        distiller: Distiller = self.accelerator.unwrap_model(self.model)
        distiller.progress = TrainingProgress(self.state.global_step, max(self.state.max_steps, 1))
        return distiller

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is None:
            return None
        if torch.isfinite(torch.as_tensor(norm)):
            self.recorder.see_gradient(float(norm))
            return norm
        scaler = self.accelerator.scaler
        if scaler is None or scaler.get_scale() <= MIN_LOSS_SCALE:
            raise KavaError(self._not_finite(f"the gradient norm is {float(norm)}"))
        # the scaled loss overflowed float16: the step is skipped, and the scale halved
        self.recorder.see_overflow()
        return None

    def _not_finite(self, what: str) -> str:
        return (
            f"{what} {self._where()}; lower --lr or look at these samples (checkpoints up to step "
            f"{self.state.global_step} are intact)"
        )

    def _where(self) -> str:
        ids = ", ".join(map(repr, self._ids))
        return f"at step {self.state.global_step + 1}, in the batch of samples {ids}"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, averaged over the steps since the last log, and the run's record."""
        if "loss" in logs:
            # each process holds its share of the sums
            logs.update(self.recorder.averages.settle(self._sum))
            record = self.recorder.settle()
            logs["tokens"] = int(self._sum(torch.tensor(record.tokens)))
            logs["nonfinite_steps"] = record.nonfinite_steps
            logs["peak_memory_bytes"] = peak_memory_bytes(self.args.device)
        elif "train_loss" in logs:
            # transformers reports the mean over the steps since the last resume
            logs["train_loss"] = mean_loss(self.state.log_history) or 0.0
        super().log(logs, start_time)

    def recorded(self) -> RunRecord:
        """The record over all processes so far; every process must call this."""
        return self.recorder.whole(gather_object([self.recorder.share()]))

    @torch.no_grad()
    @with_all_weights
    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Held-out losses, the collapse guard, and the accuracy of generated answers.

        The guard's verdict is said where it is another than before, and the run does not end here.

        Returns:
            `eval_accuracy` over `eval_num_items` questions, if the task counts written steps also
            for each number of them (`eval_accuracy_2_steps`), `eval_guessing` (the accuracy of
            always giving the most frequent answer), `eval_forward_passes`, the loss terms on the
            held-out samples, the guard's report (`eval_kv_wrong_sample`, `eval_erank_student`,
            …), CKA with the target and attention entropy; with `--eval_train_size` the terms on
            training samples, as `eval_train_ce` and `eval_train_kv`.
        """
        metrics = self.held_out_losses(eval_dataset)
        changed = self.guard.judge(metrics, self.state)
        distiller = self._tell_progress()
        if self.eval_records:
            distiller.eval()
            with self.stop.evaluating(), random_states_kept(self.args.device):
                ranks = Ranks(self.args.process_index, self.args.world_size)
                answer = partial(self._answer, distiller.student)
                answers = share_questions(ranks, self.questions, answer)
            distiller.train()
            guessing = guessing_share(self.questions)
            metrics["eval_accuracy"] = answers.accuracy
            metrics["eval_num_items"] = answers.num_items
            metrics["eval_guessing"] = guessing
            found = judge_answers(answers.num_correct, answers.num_items, guessing)
            changed = self.guard.hear(found) or changed
            metrics["eval_forward_passes"] = answers.forward_passes
            for steps, (right, total) in answers.by_num_steps.items():
                metrics[f"eval_accuracy_{steps}_steps"] = right / total
            metrics.update(further_metrics(self.compute_metrics, answers, metrics))
        goes_on = self.state.global_step < self.state.max_steps
        if changed and goes_on and self.guard.verdict is not None:
            self._say_verdict()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _answer(self, student: PreTrainedModel, questions: list[Record]) -> Answers:
        return answer_records(
            student,
            self.processing_class,  # type: ignore[arg-type]
            questions,
            self.template,
            batch_size=self.args.per_device_eval_batch_size,
            max_new_tokens=self.config.max_new_tokens,
        )

    def held_out_losses(self, eval_dataset: Any = None) -> dict[str, float]:
        """The loss terms on the held-out samples, whose evidence the guard takes.

        Returns:
            The values by name, with the prefix `eval_`.
        """
        distiller = self._tell_progress()
        distiller.eval()
        with self.stop.evaluating(), random_states_kept(self.args.device):
            metrics = held_out_losses(
                distiller,
                eval_dataset or self.eval_dataset,  # type: ignore[arg-type]
                self.guard,
                collate=self.data_collator,  # type: ignore[arg-type]
                batch_size=self.args.per_device_eval_batch_size,
                prepare=self._prepare_inputs,  # type: ignore[arg-type]
                autocast=self.autocast_smart_context_manager,
                groups=groups_of(self.eval_records),
            )
            if self.config.eval_train_size:
                metrics |= losses_on_training_samples(
                    distiller,
                    self.train_dataset,  # type: ignore[arg-type]
                    collate=self.data_collator,  # type: ignore[arg-type]
                    batch_size=self.args.per_device_eval_batch_size,
                    prepare=self._prepare_inputs,  # type: ignore[arg-type]
                    autocast=self.autocast_smart_context_manager,
                )
        distiller.train()
        return metrics

    @with_all_weights
    def _log_held_out(self) -> None:
        metrics = self.held_out_losses()
        self.guard.judge(metrics, self.state)
        self.log(metrics)
