"""The demo's jobs, in a process of their own: train and test a student, time all students."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.demo.logs import last_value
from kava.demo.results import Outcome
from kava.files.locks import clear_folder, lock_folder
from kava.files.write import write_whole
from kava.inputs import Malformed, read_json
from kava.jobs.worker import Memory, Progress, make_watch, print_to

if TYPE_CHECKING:
    from kava.data.records import Record
    from kava.train.build import Run
    from kava.train.config import TrainConfig

RESULT_FILE = "result.json"
CALIBRATION_FILE = "calibration.json"
NUM_TIMED = 50
TIMED_ROUNDS = 5


@dataclass(frozen=True)
class RunJob:
    """Train and test one student.

    Args:
        arm: name of the arm.
        config: of the training run; its output folder is the job's.
        num_items: questions of the final test.
        fingerprint: what else decides the result, such as the teacher's weights and the
            libraries' versions.
    """

    arm: str
    config: TrainConfig
    num_items: int
    fingerprint: dict[str, str]
    unit = "steps"

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.arm}, seed {self.config.seed}"

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.config.output_dir)

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.folder / "log.txt"

    @property
    def num_steps(self) -> int:
        """Steps to show in its bar."""
        return self.config.max_steps

    def settings(self) -> dict[str, Any]:
        """All that decides the result; a finished run with other settings is not reused."""
        config = asdict(self.config)
        del config["output_dir"]
        return {"config": config, "num_items": self.num_items, **self.fingerprint}

    def do(self, connection: Connection, memory: Memory) -> Outcome:
        """As a worker does it."""
        return do_run(self, connection, memory)


@dataclass(frozen=True)
class TimingJob:
    """Time the students of finished runs, one question at a time.

    Args:
        runs: the runs.
        log: the file of what it prints.
    """

    runs: tuple[RunJob, ...]
    log: Path
    name: str = "timing"
    unit = "answers"

    @property
    def num_steps(self) -> int:
        """Steps to show in its bar: answers."""
        return min(NUM_TIMED, self.runs[0].num_items) * len(self.runs)

    def do(self, connection: Connection, memory: Memory) -> list[Cost]:
        """As a worker does it."""
        return time_students(self, connection)


@dataclass(frozen=True)
class Cost:
    """What an answer costs, one question at a time on one thread."""

    forward_passes: float
    seconds: float


def finished(job: RunJob) -> Outcome | None:
    """The outcome of an earlier run with the same settings, if there is one."""
    saved = _saved(job)
    if saved is None or _differing(saved["settings"], job):
        return None
    return Outcome(**saved["outcome"])


def other_settings(job: RunJob) -> str | None:
    """By what the finished run in a job's folder differs from it; None where there is no other.

    Example:
        >>> other_settings(replace(job, num_items=11))
        'num_items 10, now 11'
    """
    saved = _saved(job)
    return None if saved is None else "; ".join(_differing(saved["settings"], job)) or None


def _saved(job: RunJob) -> dict[str, Any] | None:
    path = job.folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = read_json(path)
    except Malformed:
        return None  # an interrupted write; the run is done again
    return saved


def _differing(saved: dict[str, Any], job: RunJob) -> list[str]:
    """What decides the result and differs: name, value then, value now."""
    from kava.train.config import RESUMABLE, TrainConfig

    defaults = {field.name: field.default for field in fields(TrainConfig)}
    now = json.loads(json.dumps(job.settings()))
    # a setting that an earlier version did not have was as it is by default
    then = {**saved, **defaults, **saved["config"]}
    now.update(now.pop("config"))
    del then["config"]
    return [
        f"{name} {then.get(name)!s:.12}, now {now.get(name)!s:.12}"
        for name in {**now, **then}
        if name not in RESUMABLE and then.get(name) != now.get(name)
    ]


def do_run(job: RunJob, connection: Connection, memory: Memory) -> Outcome:
    """Train and test one student; keep everything in the run's folder."""
    with lock_folder(job.folder, "kava demo"):
        clear_folder(job.folder)
        return _train_and_test(job, connection, memory)


def _train_and_test(job: RunJob, connection: Connection, memory: Memory) -> Outcome:
    print_to(job.log)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.folder / "tensorboard")
    from kava.student.answering import answer_records

    run = memory.build(job.config)
    trainer = run.trainer
    if run.calibration is not None:
        write_whole(job.folder / CALIBRATION_FILE, run.calibration.to_json() + "\n")
    tokenizer: Any = trainer.processing_class
    watch = make_watch(connection)
    trainer.add_callback(watch)
    begin = time.perf_counter()
    trainer.train()
    train_seconds = time.perf_counter() - begin - watch.evaluation_seconds
    answers = answer_records(
        trainer.model.student,
        tokenizer,
        final_questions(job),
        trainer.template,
        batch_size=250,
        max_new_tokens=job.config.max_new_tokens,
    )
    outcome = Outcome(
        arm=job.arm,
        seed=job.config.seed,
        accuracy=answers.accuracy,
        num_items=answers.num_items,
        train_seconds=train_seconds,
        aligner_parameters=trainer.model.map_aligner.num_parameters,
        r_squared=mean_r_squared(run),
        kv=last_value(job.folder, "eval_kv"),
        kv_wrong_sample=last_value(job.folder, "eval_kv_wrong_sample"),
    )
    text = json.dumps({"settings": job.settings(), "outcome": asdict(outcome)}, indent=2)
    write_whole(job.folder / RESULT_FILE, text + "\n")
    return outcome


def mean_r_squared(run: Run) -> float | None:
    """What the calibrated maps explain of held-out keys and values, over layers and both parts."""
    if run.calibration is None:
        return None
    fits = [*run.calibration.part("keys"), *run.calibration.part("values")]
    return sum(fit.calibrated.r_squared for fit in fits) / len(fits)


def final_questions(job: RunJob) -> list[Record]:
    """The questions of the final test, which no curve has seen."""
    from kava.data.sources import load_records

    name = job.config.eval_dataset_name
    assert name is not None
    return load_records(name, split="test")[job.config.eval_size :]


def time_students(job: TimingJob, connection: Connection) -> list[Cost]:
    """Let the students answer in turns, a few questions each, so that all meet the same machine."""
    print_to(job.log)
    from kava.models.devices import choose_device
    from kava.student.answering import answer_records
    from kava.student.checkpoint import load_student

    students = [
        load_student(run.folder, device=choose_device(run.config.device)) for run in job.runs
    ]
    seconds, passes, step = [0.0] * len(students), [0.0] * len(students), 0
    questions = final_questions(job.runs[0])[:NUM_TIMED]
    size = -(-len(questions) // TIMED_ROUNDS)
    for start in range(0, len(questions), size):
        some = questions[start : start + size]
        for index, (run, student) in enumerate(zip(job.runs, students)):
            answers = answer_records(
                student.model,
                student.tokenizer,
                some,
                student.template,
                batch_size=1,
                max_new_tokens=run.config.max_new_tokens,
            )
            seconds[index] += answers.seconds
            passes[index] += answers.forward_passes * len(some)
            step += len(some)
            connection.send(Progress(step))
    num = len(questions)
    return [Cost(count / num, total / num) for count, total in zip(passes, seconds)]
