"""The collapse guard of a run: evidence from every evaluation, a verdict at each and at the end.

Where the target can move, because its aligner learns beside the student, the evidence is taken
once before the first step too, and logged as step 0: what a target has lost can only be told
from what it had. It is read back from the log, so that a resumed run has it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kava.losses import CollapseReport, Start, Verdict, collapse_report, verdict
from kava.losses.guard import TraceLoss
from kava.train.config import TrainConfig

if TYPE_CHECKING:
    from kava.train.objective import Forward
    from kava.train.trainer import KVDistillTrainer


class RunGuard:
    """Collects the reports of an evaluation's batches and says what they mean.

    Args:
        config: the run's configuration.
        loss_fn: the loss that is trained with.
    """

    def __init__(self, config: TrainConfig, loss_fn: TraceLoss):
        self.config = config
        self.loss_fn = loss_fn
        self.reports: list[CollapseReport] = []
        self.verdict: Verdict | None = None

    def look(self, forward: Forward) -> None:
        """Take the evidence of one batch; one of a single sample has no wrong sample."""
        if forward.student is None or forward.target is None or forward.student.batch_size < 2:
            return
        report = collapse_report(forward.student, forward.target.trace, self.loss_fn)
        self.reports.append(report)

    def judge(self, metrics: dict[str, float], state: TrainerState) -> str | None:
        """Add the evidence to an evaluation's metrics; the verdict, unless the run is to start.

        Args:
            metrics: of the evaluation, with `eval_ce`.
            state: of the run, whose log holds the evidence from before its first step.
        """
        if not self.reports:
            return None
        report = CollapseReport.mean(self.reports)
        self.reports = []
        metrics.update({f"eval_{name}": x for name, x in report.metrics().items() if name != "kv"})
        if state.global_step == 0:
            return None
        start = start_of(state) if self.config.trains_target else None
        self.verdict = verdict(report, ce=metrics["eval_ce"], start=start)
        return self.verdict.sentence

    def state(self) -> dict[str, str] | None:
        """The last verdict, as JSON holds it."""
        return None if self.verdict is None else self.verdict._asdict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take the last verdict of an interrupted run."""
        self.verdict = None if state is None else Verdict(**state)

    def last_word(self) -> str | None:
        """The verdict at the end of a run; None of a run that matches no cache."""
        if self.verdict is not None:
            return self.verdict.sentence
        if not self.config.matches_cache:
            return None
        return "no verdict: nothing was held out to compare with the wrong sample; pass --eval_size"


def start_of(state: TrainerState) -> Start | None:
    """The evidence from before the first step, from the run's log."""
    for row in state.log_history:
        if row.get("step") == 0 and "eval_kv_between" in row:
            return Start(float(row["eval_kv_between"]), float(row["eval_ce"]))
    return None


class MakeUpEvaluation(TrainerCallback):
    """Look at a run before its first step where the target can move; after a resume, evaluate
    where the evaluation of the checkpoint's step was interrupted."""

    def __init__(self, trainer: KVDistillTrainer):
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the losses over the held-out samples as step 0, or the evaluation that is due."""
        starts = state.global_step == 0 and self.trainer.config.trains_target
        if starts and self.trainer.eval_dataset is not None:
            self.trainer.log(self.trainer.held_out_losses())
        elif self.trainer.evaluation_is_due(state):
            self.trainer.make_up_evaluation()
