"""The collapse guard of a run: evidence from every evaluation, a verdict at each and at the end.

The verdict has three parts. What the caches say is judged from the evidence; what the answers say
comes from the evaluation's accuracy (`kava.train.answers`), where it is measured; and what the
student can read says which link is broken, if one is (`kava.losses.reading`). A student may match
its target well and answer at chance: the verdict says both, and why.

Where the target can move, because its aligner learns beside the student, the evidence is taken
once before the first step too, and logged as step 0: what a target has lost can only be told
from what it had. It is read back from the log, so that a resumed run has it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kava.losses import CollapseReport, CollapseVerdict, InitialMetrics, collapse_report, verdict
from kava.losses.guard import TraceLoss
from kava.losses.reading import ReadingVerdict, reading_of, reading_verdict
from kava.losses.verdict import Unit
from kava.shared import space_verdict
from kava.trace import KVTrace, join_samples
from kava.train.answers import AnswersVerdict
from kava.train.config import TrainConfig
from kava.train.routing import routing_verdict
from kava.train.teacher_names import teachers_of

SPACE = "eval_shared_space_"
GROUP_SAMPLES = 8
"""Samples of the held-out set that make one report, in their order; what remains at the end joins
the last group. The effective rank and CKA are statistics of a group: of fewer samples they say
little, and groups of the evaluation's batches would make them depend on `--eval_batch_size`."""

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
        self._reports: list[CollapseReport] = []
        self._waiting: tuple[KVTrace, KVTrace] | None = None
        self._before: KVTrace | None = None
        self._num_slots: int | None = None
        self.verdict: CollapseVerdict | None = None
        self.answers: AnswersVerdict | None = None
        self.reading: ReadingVerdict | None = None
        self.routing: str | None = None
        self.space: str | None = None

    def begin(self, last: Forward | None = None, num_slots: int | None = None) -> None:
        """Begin an evaluation.

        Args:
            last: of the last sample of the held-out set, which comes before its first; left out
                of a set of one sample.
            num_slots: the most that a sample of the set has.
        """
        self._reports, self._waiting = [], None
        self._before = None if last is None or last.target is None else last.target.trace
        self._num_slots = num_slots

    def look(self, forward: Forward) -> None:
        """Take the evidence of one batch.

        The wrong sample of each is the one before it in the held-out set, whatever the batches.
        """
        if forward.student is None or forward.target is None:
            return
        pair = forward.student, forward.target.trace
        if self._waiting is not None:
            pair = (
                join_samples([self._waiting[0], pair[0]]),
                join_samples([self._waiting[1], pair[1]]),
            )
        size = pair[1].batch_size
        # the rest of a set joins its last group, so that none is smaller than the others
        start = 0
        while size - start >= 2 * GROUP_SAMPLES:
            self._report(*(part.samples(slice(start, start + GROUP_SAMPLES)) for part in pair))
            start += GROUP_SAMPLES
        rest = torch.arange(start, size, device=pair[1].keys.device)
        self._waiting = pair[0].samples(rest), pair[1].samples(rest)

    def _report(self, student: KVTrace, target: KVTrace) -> None:
        if target.batch_size < 2 and self._before is None:
            return  # a set of one sample has no wrong one
        report = collapse_report(student, target, self.loss_fn, self._before, self._num_slots)
        self._reports.append(report)
        self._before = target.samples([target.batch_size - 1])

    def judge(self, metrics: dict[str, float], state: TrainerState) -> bool:
        """Add the evidence to an evaluation's metrics, and judge, unless the run is to start.

        Args:
            metrics: of the evaluation, with `eval_ce`.
            state: of the run, whose log holds the evidence from before its first step.

        Returns:
            Whether the verdict's state is another than the last.
        """
        if self._waiting is not None:
            self._report(*self._waiting)
            self._waiting = None
        last, last_reading = self.verdict, self.reading
        if state.global_step:
            earlier = [reading_of(row).get("written", 0.0) for row in state.log_history]
            self.reading = reading_verdict(reading_of(metrics), max(earlier, default=0.0))
            labels = [one.label for one in teachers_of(self.config)]
            learned = self.config.trains_router
            self.routing = routing_verdict(metrics, labels, learned) if labels else None
            points = {
                name.removeprefix(SPACE): x for name, x in metrics.items() if name.startswith(SPACE)
            }
            self.space = space_verdict(points) if points else None
        if not self._reports:
            return False
        report = CollapseReport.mean(self._reports)
        config = self.config
        trained = config.kv_weight or config.cka_weight
        # a KV loss that is trained is there already, as a term; one that is not is only watched
        metrics.update(
            {f"eval_{n}": x for n, x in report.metrics().items() if n != "kv" or not trained}
        )
        if state.global_step == 0:
            return False
        start = start_of(state) if self.config.trains_target else None
        unit: Unit = "latent" if self.config.student == "latent" else "position"
        self.verdict = verdict(report, ce=metrics["eval_ce"], start=start, unit=unit)
        changed = last is None or last.state != self.verdict.state
        return changed or _state(last_reading) != _state(self.reading)

    def hear(self, answers: AnswersVerdict | None) -> bool:
        """Take what the answers of the evaluation say; None where they say nothing.

        Returns:
            Whether their state is another than the last.
        """
        last, self.answers = self.answers, answers
        return _state(last) != _state(answers)

    def state(self) -> dict[str, Any] | None:
        """The last verdict, as JSON holds it; None where there is none."""
        caches = {} if self.verdict is None else self.verdict._asdict()
        parts = {"answers": self.answers, "reading": self.reading}
        others = {name: part._asdict() for name, part in parts.items() if part is not None}
        said = {"routing": self.routing, "space": self.space}
        sentences = {name: sentence for name, sentence in said.items() if sentence is not None}
        return {**caches, **others, **sentences} or None

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take the last verdict of an interrupted run, of an earlier version too."""
        self.verdict = self.answers = self.reading = self.routing = self.space = None
        if state is None:
            return
        self.routing, self.space = state.get("routing"), state.get("space")
        if "state" in state:
            details = tuple(state.get("details", ()))
            self.verdict = CollapseVerdict(state["state"], state["sentence"], details)
        if state.get("answers") is not None:
            self.answers = AnswersVerdict(**state["answers"])
        if state.get("reading") is not None:
            self.reading = ReadingVerdict(**state["reading"])

    def in_short(self) -> str | None:
        """The verdict in a few words, for the line of an evaluation."""
        if self.verdict is None or self.answers is None:
            return None if self.verdict is None else self.verdict.state
        return f"{self.verdict.state} (answers {self.answers.state})"

    def last_word(self) -> str | None:
        """The verdict at the end of a run, in one line or more.

        What the caches say comes first, and where the answers say less, that at once. A run that
        matches no cache has the sentence on reading alone, or none (None).
        """
        if self.verdict is not None:
            return "\n".join(self._lines(self.verdict))
        if not self.config.matches_cache:
            return None if self.reading is None else self.reading.sentence
        if self.config.eval_size:
            return "no verdict: one sample was held out, which has no other; pass --eval_size 2"
        return "no verdict: nothing was held out to compare with the wrong sample; pass --eval_size"

    def _lines(self, caches: CollapseVerdict) -> list[str]:
        reading = [] if self.reading is None else [self.reading.sentence]
        reading += [said for said in (self.routing, self.space) if said is not None]
        if self.answers is None:
            return [caches.sentence, *reading, *caches.details]
        if self.answers.doubts and caches.state in ("transfers", "partly"):
            what, _, why = caches.sentence.partition(": ")
            return [f"{what}, but {self.answers.sentence}", *reading, why, *caches.details]
        return [caches.sentence, self.answers.sentence, *reading, *caches.details]


def _state(part: AnswersVerdict | ReadingVerdict | None) -> str | None:
    return None if part is None else part.state


def start_of(state: TrainerState) -> InitialMetrics | None:
    """The evidence from before the first step, from the run's log."""
    for row in state.log_history:
        if row.get("step") == 0 and "eval_kv_between" in row:
            return InitialMetrics(float(row["eval_kv_between"]), float(row["eval_ce"]))
    return None


class MakeUpEvaluation(TrainerCallback):
    """Look at a run before its first step where that is asked for; after a resume, evaluate
    where the evaluation of the checkpoint's step was interrupted.

    Args:
        look: logs the losses over the held-out samples, or evaluates; None where nothing is
            looked at.
        is_due: whether the evaluation of a state's step was interrupted.
        make_up: evaluates.
    """

    def __init__(
        self,
        look: Callable[[], object] | None,
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
