"""Where the jobs and runs of a submitted study stand, and their logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kava.cluster.engines import scheduler_of
from kava.cluster.estimate import steps_of
from kava.cluster.schedulers import ACTIVE, FOLDER, Job, Submission
from kava.format import NOTHING, columns, fixed, seconds, whole
from kava.inputs import read_text
from kava.study.folder import metric_lines, read_result, run_folder
from kava.study.plan import Plan


class Standing(NamedTuple):
    """Where one run stands.

    Attributes:
        arm: of the run.
        seed: of the run.
        job: the scheduler's id; empty once it has forgotten it.
        state: finished, failed, or the state of its job; lost, if there is neither.
        step: the last one logged.
        steps: all; None if they follow from the data.
        loss: at that step.
        left: seconds of training that are left; None if not known.
        stops: time limits that it has met so far.
        error: the last line that says what went wrong; empty if nothing did.
    """

    arm: str
    seed: int
    job: str
    state: str
    step: int | None
    steps: int | None
    loss: float | None
    left: float | None
    stops: int
    error: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self.state not in ACTIVE


def standings(plan: Plan, folder: Path, submission: Submission) -> list[Standing]:
    """Where each run of a submission stands.

    Args:
        plan: of the study.
        folder: of the study.
        submission: its newest one.

    Raises:
        KavaError: the scheduler does not answer.
        ValueError: a result that is damaged.
    """
    jobs = scheduler_of(submission.engine)[1].jobs(submission, folder)
    return [
        _standing(plan, folder, arm, seed, jobs.get(number))
        for number, (arm, seed) in enumerate(submission.tasks)
    ]


def _standing(plan: Plan, folder: Path, arm: str, seed: int, job: Job | None) -> Standing:
    own = run_folder(folder, arm, seed)
    result = read_result(own)
    rows = metric_lines(own)
    step = rows[-1]["step"] if rows else None
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    steps = steps_of(plan, plan.arm(arm))
    left = rows[-1]["seconds"] / step * (steps - step) if rows and step and steps else None
    if result is not None and result["finished"]:
        state, left = "finished", 0.0
    elif job is not None and job.is_active:
        state = job.state
    elif result is not None:
        state = "failed"
    else:
        state = "lost" if job is None or job.state == "completed" else job.state
    error = "" if state == "finished" or (job and job.is_active) else last_error(folder, arm, seed)
    return Standing(
        arm, seed, job.id if job else "", state, step, steps,
        losses[-1] if losses else None, left, num_stops(folder, arm, seed), error,
    )  # fmt: skip


def num_stops(folder: Path, arm: str, seed: int) -> int:
    """The time limits that a run has met."""
    path = folder / FOLDER / "stops" / f"{arm}-{seed}"
    return len(read_text(path).splitlines()) if path.is_file() else 0


def log_paths(folder: Path, arm: str, seed: int) -> list[Path]:
    """The logs of a run: of its job, of its training, and what its job complained of."""
    place = folder / FOLDER / "logs"
    own = run_folder(folder, arm, seed) / "log.txt"
    return [place / f"{arm}-{seed}.out", own, place / f"{arm}-{seed}.err"]


def last_error(folder: Path, arm: str, seed: int) -> str:
    """The last line of a job's log that says what went wrong; else its last line."""
    lines = tail(log_paths(folder, arm, seed)[-1], 200)
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines or [""])[-1]


def tail(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file, without empty ones; none if it is not there."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()][-num_lines:]


def standing_table(found: list[Standing], report: Job | None) -> str:
    """A row for each run, the state of the report, and what went wrong."""
    rows: list[tuple[str, ...]] = [
        ("arm", "seed", "job", "state", "step", "loss", "left", "limits met")
    ]
    rows += [
        (
            one.arm,
            str(one.seed),
            one.job or NOTHING,
            one.state,
            whole(one.step) + ("" if one.steps is None else f" of {one.steps:,}"),
            fixed(one.loss, 4) if one.loss is not None else NOTHING,
            seconds(one.left),
            str(one.stops),
        )
        for one in found
    ]
    lines = columns(rows, left=4)
    counts: dict[str, int] = {}
    for one in found:
        counts[one.state] = counts.get(one.state, 0) + 1
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    if report is not None:
        lines.append(f"report: job {report.id}, {report.state}")
    lines += [f"{one.arm}, seed {one.seed}: {one.error}" for one in found if one.error]
    return "\n".join(lines)


def report_job(jobs: Mapping[int | str, Job]) -> Job | None:
    """The report's job, if the scheduler knows of it."""
    return jobs.get("report")
