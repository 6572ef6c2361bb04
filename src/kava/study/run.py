"""One run of a study, in its own process: train, test, and write all results.

An interrupted run resumes from its newest checkpoint if it has one, else it starts again. Its
output is written to its log.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.files.locks import clear_folder, is_locked, lock_folder
from kava.files.write import write_whole
from kava.jobs.worker import Memory, make_watch, print_to
from kava.study import folder as files
from kava.study import results as results_of
from kava.study.plan import Arm, Plan, canonical_hash
from kava.study.questions import test_records
from kava.study.settings import train_config

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


NOT_DECIDING = (
    "output_dir", "resume", "resume_from", "start_from", "overwrite", "no_progress",
    "save_only_model", "report_to",
)  # fmt: skip
"""Settings that do not affect a result; of `start_from` the weights count, not the place."""


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed.

    Args:
        plan: of the study.
        arm: one of its arms.
        seed: one of its seeds.
        study: the study's folder.
        fingerprint: what else affects the result: library versions, local weights.
    """

    plan: Plan
    arm: Arm
    seed: int
    study: Path
    fingerprint: dict[str, str]
    unit = "steps"

    @property
    def name(self) -> str:
        """The name in messages and tables."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The folder that the run writes to."""
        return files.run_folder(self.study, self.arm.name, self.seed)

    @property
    def log(self) -> Path:
        """The file of the run's output."""
        return self.folder / files.LOG_FILE

    @cached_property
    def config(self) -> TrainConfig:
        """The configuration of the training."""
        plan, study = self.plan, self.study
        return train_config(plan, self.arm, self.seed, self.folder, files.defaults_of(study))

    @property
    def num_steps(self) -> int:
        """Number of steps for the progress bar; 0 if it depends on the data."""
        config = self.config
        if not self.arm.trained:
            return 0
        if config.max_steps > 0 or config.subset_size is None:
            return max(config.max_steps, 0)
        per_step = config.batch_size * config.gradient_accumulation_steps
        return round(-(-config.subset_size // per_step) * config.epochs)

    @cached_property
    def settings_hash(self) -> str:
        """SHA-256 of everything that affects the result, without the output folder.

        A flag that came later is left out where it has the value that held before it, so that older
        folders can be continued.
        """
        from kava.train.defaults import BEFORE

        config = {
            name: value
            for name, value in asdict(self.config).items()
            if name not in NOT_DECIDING and not (name in BEFORE and value == BEFORE[name])
        }
        settings = {
            "config": config,
            "trained": self.arm.trained,
            "test_items": self.plan.data.test_items,
            **self.fingerprint,
        }
        return canonical_hash(settings)

    def finished(self, mend: str = files.OTHER_FOLDER) -> dict[str, Any] | None:
        """The result of a finished run, if there is one.

        Args:
            mend: advice for the message if the result was made with other settings.

        Raises:
            ValueError: the result is damaged, or was made with other settings; it is kept.
        """
        result = files.read_result(self.folder)
        if result is None or not result["finished"]:
            return None
        if result["settings_hash"] != self.settings_hash:
            raise ValueError(
                f"{self.folder} holds a finished run with other settings "
                f"({_apart(result, self.fingerprint)}): go on with the libraries and weights that "
                f"it began with, or {mend}"
            )
        return result

    def do(self, connection: Connection, memory: Memory) -> dict[str, Any]:
        """Train and test, and return the result."""
        with lock_folder(self.folder, "kava study run"):
            resume = self._prepare()
            print_to(self.log, append=resume)
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.folder / "tensorboard")
            if self.arm.trained:
                return train_and_test(self, connection, memory, resume)
            return evaluate_untrained(self)

    def fail(self, reason: str) -> None:
        """Record that the run failed; its checkpoints are kept.

        Nothing is recorded where another call is at work on the same run.
        """
        if is_locked(self.folder):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"finished": False, "reason": reason})

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result with the hashes of the other files, as the last step of a run."""
        hashes = {
            name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            for name in files.RECORDED
            if (self.folder / name).is_file()
        }
        return self._write({"finished": True, **result, "files": hashes})

    def _write(self, result: dict[str, Any]) -> dict[str, Any]:
        whole = {
            "arm": self.arm.name,
            "seed": self.seed,
            "plan_hash": self.plan.hash,
            "settings_hash": self.settings_hash,
            **result,
            "versions": self.fingerprint,
        }
        results_of.write_json(self.folder / files.RESULT_FILE, whole)
        return whole

    def _prepare(self) -> bool:
        """Prepare the folder; return whether to resume from a checkpoint in it."""
        from kava.train.resume import whole_checkpoint

        path = self.folder / files.SETTINGS_FILE
        begun = path.is_file() and self.settings_hash in path.read_text(encoding="utf-8")
        (self.folder / files.RESULT_FILE).unlink(missing_ok=True)  # left by a failed run
        if begun and whole_checkpoint(self.folder) is not None:
            return True
        clear_folder(self.folder)
        results_of.write_json(path, {"settings_hash": self.settings_hash})
        return False


def _apart(result: dict[str, Any], now: dict[str, str]) -> str:
    then = result["versions"]
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    parts = [f"{name} {then.get(name)!s:.12}, now {now.get(name)!s:.12}" for name in names]
    return "; ".join(parts) or "this version of kava trains with other settings"


def train_and_test(
    run: StudyRun, connection: Connection, memory: Memory, resume: bool
) -> dict[str, Any]:
    """Train a student, test it, and write everything but the log.

    Args:
        run: what to train.
        connection: receives the progress.
        memory: cache of encoded data.
        resume: resume from the newest checkpoint.

    Returns:
        The result.
    """
    from kava.data.splits import data_hash
    from kava.student.answering import answer_records
    from kava.student.prompts import check_questions
    from kava.study.alignment import alignment_of
    from kava.train.recording import loss_smoothness, peak_memory_bytes

    built = memory.build(replace(run.config, resume=resume))
    trainer = built.trainer
    for notice in built.start.notices:
        print(f"warning: {notice}")
    results_of.write_calibrations(run.folder, run.config, built.calibrations)
    questions = test_records(run.config, run.plan.data, built.data.train_records)
    tokenizer: Any = trainer.processing_class
    distiller = trainer.accelerator.unwrap_model(trainer.model)
    check_questions(
        distiller.student, tokenizer, questions, trainer.template, run.config.max_new_tokens
    )
    trainer.add_callback(make_watch(connection))
    trainer.train(resume_from_checkpoint=str(built.checkpoint) if built.checkpoint else None)
    memory_bytes = peak_memory_bytes(trainer.args.device)
    alignment = alignment_of(built)
    if alignment is not None:
        results_of.write_json(run.folder / files.ALIGNMENT_FILE, alignment)
    answers = answer_records(
        distiller.student,
        tokenizer,
        questions,
        trainer.template,
        batch_size=run.config.eval_batch_size,
        max_new_tokens=run.config.max_new_tokens,
    )
    results_of.write_items(run.folder / files.ITEMS_FILE, answers)
    record = trainer.recorded()
    lines = files.metric_lines(run.folder)
    return run.finish(
        {
            **results_of.scores_of(answers),
            "budget": {
                "optimizer_steps": trainer.state.global_step,
                "samples": record.samples,
                "tokens": record.tokens,
                "data_order_hash": record.data_order_hash,
                "data_hash": built.data.hash,
                "test_hash": data_hash(questions),
            },
            "parameters": results_of.num_parameters(distiller.student),
            "aligner_parameters": distiller.map_aligner.num_parameters,
            "train_seconds": round(record.seconds, 3),
            "peak_memory_bytes": memory_bytes,
            "device": str(trainer.args.device),
            "health": {
                "grad_norm_mean": record.grad_norm_mean,
                "grad_norm_max": record.grad_norm_max,
                "nonfinite_steps": record.nonfinite_steps,
                "loss_smoothness": loss_smoothness([x["loss"] for x in lines if "loss" in x]),
            },
            "last": results_of.last_of(lines),
            "cost": results_of.cost_of(answers),
        }
    )


def evaluate_untrained(run: StudyRun) -> dict[str, Any]:
    """Evaluate a model without training: no budget, and one row of metrics at step 0."""
    from kava.data.chat import Chats
    from kava.data.sources import default_template
    from kava.data.splits import data_hash
    from kava.models.devices import choose_device
    from kava.student.answering import answer_records
    from kava.train.data import records_of
    from kava.train.models import build_student, build_tokenizer
    from kava.train.recording import peak_memory_bytes, reset_peak_memory

    config = run.config
    device: Any = choose_device(config.device)
    tokenizer, student = build_tokenizer(config), build_student(config).to(device)
    reset_peak_memory(student.device)
    template = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    template = Chats(tokenizer, config.chat_template, config.model_name).template(template)
    name = config.eval_dataset_name
    assert name is not None
    curve = [
        record
        for record in records_of(config, name, config.eval_split)[: config.eval_size]
        if not record.missing
    ]
    answer = partial(
        answer_records,
        student,
        tokenizer,
        template=template,
        batch_size=config.eval_batch_size,
        max_new_tokens=config.max_new_tokens,
    )
    first = answer(records=curve)
    line = {"step": 0, "seconds": 0.0, "eval_accuracy": first.accuracy}
    write_whole(run.folder / files.METRICS_FILE, json.dumps(line) + "\n")
    questions = test_records(run.config, run.plan.data, ())
    answers = answer(records=questions)
    results_of.write_items(run.folder / files.ITEMS_FILE, answers)
    return run.finish(
        {
            **results_of.scores_of(answers),
            "budget": {
                "optimizer_steps": 0,
                "samples": 0,
                "tokens": 0,
                "data_order_hash": None,
                "data_hash": None,
                "test_hash": data_hash(questions),
            },
            "parameters": results_of.num_parameters(student),
            "aligner_parameters": 0,
            "train_seconds": 0.0,
            "peak_memory_bytes": peak_memory_bytes(student.device),
            "device": str(student.device),
            "health": dict.fromkeys(
                ("grad_norm_mean", "grad_norm_max", "nonfinite_steps", "loss_smoothness")
            ),
            "last": results_of.last_of([]),
            "cost": results_of.cost_of(answers),
        }
    )
