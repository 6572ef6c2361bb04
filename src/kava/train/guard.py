"""The collapse guard of a run: evidence from every evaluation, a verdict at each and at the end.

Where the target can move, because its aligner learns beside the student, the evidence is taken
once before the first step too, and logged as step 0: what a target has lost can only be told
from what it had. It is read back from the log, so that a resumed run has it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kava.losses import CollapseReport, CollapseVerdict, InitialMetrics, collapse_report, verdict
from kava.losses.guard import TraceLoss
from kava.trace import KVTrace, join_samples
from kava.train.config import TrainConfig

MIN_SAMPLES = 8
"""The effective rank and CKA are statistics of a batch: of fewer samples they say little."""

if TYPE_CHECKING:
    from kava.train.terms import Forward


class RunGuard:
    """Collects the reports of an evaluation's batches and says what they mean.

    Args:
        config: the run's configuration.
        loss_fn: the loss that is trained with.
    """

    def __init__(self, config: TrainConfig, loss_fn: TraceLoss):
        self.config = config
        self.loss_fn = loss_fn
        self._reports: list[tuple[CollapseReport, int]] = []
        self._waiting: list[tuple[KVTrace, KVTrace]] = []
        self._before: KVTrace | None = None
        self.verdict: CollapseVerdict | None = None

    def begin(self, last: Forward | None = None) -> None:
        """Begin an evaluation.

        Args:
            last: of the last sample of the held-out set, which comes before its first; left out
                where all of them are in one batch.
        """
        self._reports, self._waiting = [], []
        self._before = None if last is None or last.target is None else last.target.trace

    def look(self, forward: Forward) -> None:
        """Take the evidence of one batch; small ones wait until enough samples are there.

        The wrong sample of each is the one before it in the held-out set, whatever the batches.
        """
        if forward.student is None or forward.target is None:
            return
        self._waiting.append((forward.student, forward.target.trace))
        if sum(target.batch_size for _, target in self._waiting) >= MIN_SAMPLES:
            self._report()

    def _report(self) -> None:
        if not self._waiting:
            return
        student, target = map(join_samples, zip(*self._waiting))
        self._waiting = []
        if target.batch_size < 2 and self._before is None:
            return  # a set of one sample has no wrong one
        report = collapse_report(student, target, self.loss_fn, self._before)
        self._reports.append((report, target.batch_size))
        self._before = target.samples([target.batch_size - 1])

    def judge(self, metrics: dict[str, float], state: TrainerState) -> bool:
        """Add the evidence to an evaluation's metrics, and judge, unless the run is to start.

        Args:
            metrics: of the evaluation, with `eval_ce`.
            state: of the run, whose log holds the evidence from before its first step.

        Returns:
            Whether the verdict is another than the last.
        """
        self._report()
        if not self._reports:
            return False
        report = CollapseReport.mean(*zip(*self._reports))
        metrics.update({f"eval_{name}": x for name, x in report.metrics().items() if name != "kv"})
        if state.global_step == 0:
            return False
        last = self.verdict
        start = start_of(state) if self.config.trains_target else None
        self.verdict = verdict(report, ce=metrics["eval_ce"], start=start)
        return last is None or last.state != self.verdict.state

    def state(self) -> dict[str, str] | None:
        """The last verdict, as JSON holds it."""
        return None if self.verdict is None else self.verdict._asdict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take the last verdict of an interrupted run."""
        self.verdict = None if state is None else CollapseVerdict(**state)

    def last_word(self) -> str | None:
        """The verdict at the end of a run; None of a run that matches no cache."""
        if self.verdict is not None:
            return self.verdict.sentence
        if not self.config.matches_cache:
            return None
        if self.config.eval_size:
            return "no verdict: one sample was held out, which has no other; pass --eval_size 2"
        return "no verdict: nothing was held out to compare with the wrong sample; pass --eval_size"


def start_of(state: TrainerState) -> InitialMetrics | None:
    """The evidence from before the first step, from the run's log."""
    for row in state.log_history:
        if row.get("step") == 0 and "eval_kv_between" in row:
            return InitialMetrics(float(row["eval_kv_between"]), float(row["eval_ce"]))
    return None


class MakeUpEvaluation(TrainerCallback):
    """Look at a run before its first step where the target can move; after a resume, evaluate
    where the evaluation of the checkpoint's step was interrupted.

    Args:
        look: logs the losses over the held-out samples; None where nothing is looked at.
        is_due: whether the evaluation of a state's step was interrupted.
        make_up: evaluates.
    """

    def __init__(
        self,
        look: Callable[[], None] | None,
        is_due: Callable[[TrainerState], bool],
        make_up: Callable[[], None],
    ):
        self.look = look
        self.is_due = is_due
        self.make_up = make_up

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the losses over the held-out samples as step 0, or the evaluation that is due."""
        if state.global_step == 0 and self.look is not None:
            self.look()
        elif self.is_due(state):
            self.make_up()
