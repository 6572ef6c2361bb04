"""Submit the missing runs of a plan as jobs, with the report behind them.

Everything that can be refused is refused before anything is written. The plan is locked as by
`kava study run`; runs that are finished are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from kava.cluster.engines import scheduler_of
from kava.cluster.estimate import check_limit
from kava.cluster.options import JobOptions
from kava.cluster.record import read_record, write_record
from kava.cluster.schedulers import FOLDER, Scheduler, Submission
from kava.cluster.scripts import check_venv, render_scripts
from kava.errors import KavaError
from kava.files.locks import lock_folder
from kava.files.write import write_all
from kava.machine.programs import Unreachable
from kava.stopping import holding
from kava.study.folder import lock_plan
from kava.study.packed import check_unpacked
from kava.study.plan import Plan
from kava.study.runner import study_runs


class Prepared(NamedTuple):
    """A submission before anything is written.

    Attributes:
        engine: name of the scheduler.
        scheduler: that will take the jobs.
        options: of the jobs.
        folder: of the study; absolute.
        tasks: arm and seed of the runs that are missing.
        num_finished: of the chosen runs that are there already.
        scripts: path → text.
        notes: what to expect of the time limit.
    """

    engine: str
    scheduler: Scheduler
    options: JobOptions
    folder: Path
    tasks: tuple[tuple[str, int], ...]
    num_finished: int
    scripts: dict[Path, str]
    notes: list[str]


def prepare(
    plan: Plan,
    folder: Path,
    options: JobOptions,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    anywhere: bool = False,
) -> Prepared:
    """Check a plan against the cluster and render its scripts; nothing is written.

    Args:
        plan: the study.
        folder: of the study.
        options: of the jobs.
        arms: only these; None: all.
        seeds: only these; None: all.
        anywhere: without a scheduler in reach the scripts are rendered unchecked.

    Raises:
        KavaError: no scheduler, no such partition, a limit in which no run can finish, jobs of the
            study that have not ended, or no run that is missing.
        ValueError: finished runs of other settings, or no such virtual environment.
    """
    engine, scheduler = scheduler_of(options.engine)
    options = replace(options, engine=engine)
    if not anywhere:
        check_venv(options)
    folder = folder.absolute()
    check_unpacked(folder)
    check_not_submitted(folder)
    runs = study_runs(plan, folder, arms=arms, seeds=seeds)
    tasks = tuple((run.arm.name, run.seed) for run in runs if run.finished() is None)
    if not tasks:
        raise KavaError(
            f"all {len(runs)} runs of {folder} are finished: there is nothing to submit; its page: "
            f"kava study report {folder}"
        )
    unchecked = []
    try:
        scheduler.check(options, len(tasks))
    except Unreachable as problem:
        if not anywhere:
            raise
        unchecked.append(f"not checked against a cluster: {problem}")
    notes = [*unchecked, *check_limit(plan, list(plan.choose(arms)), folder, options)]
    scripts = render_scripts(plan.name, tasks, folder, options, scheduler)
    num_finished = len(runs) - len(tasks)
    return Prepared(engine, scheduler, options, folder, tasks, num_finished, scripts, notes)


def check_not_submitted(folder: Path) -> None:
    """Refuse a study of which jobs wait or run.

    Raises:
        KavaError: there are such jobs; they are left alone.
    """
    for one in read_record(folder):
        jobs = scheduler_of(one.engine)[1].jobs(one, folder)
        active = [job for job in jobs.values() if job.is_active]
        if active:
            raise KavaError(
                f"{folder} is submitted already: job {one.runs} of {one.engine} has not ended "
                f"({active[0].state}); wait for it, or kava cluster cancel {folder}"
            )


def submit(prepared: Prepared, plan: Plan, *, source: str, command: str) -> Submission:
    """Lock the plan, write the scripts, submit them, and record their ids.

    Args:
        prepared: by `prepare`.
        plan: the study.
        source: the text of the plan's file.
        command: the command line.

    Raises:
        KavaError: the scheduler refuses; what was submitted before is recorded and named.
    """
    folder, options, scheduler = prepared.folder, prepared.options, prepared.scheduler
    place = folder / FOLDER
    with lock_folder(folder, "kava cluster submit"):
        lock_plan(folder, plan, source, command)
        for name in ("logs", "stops"):
            (place / name).mkdir(parents=True, exist_ok=True)
        for arm, seed in prepared.tasks:  # limits of an earlier submission count no more
            (place / "stops" / f"{arm}-{seed}").unlink(missing_ok=True)
        write_all(prepared.scripts)
        record = read_record(folder)
    submitted = datetime.now().astimezone().isoformat(timespec="seconds")
    with holding():  # a job whose id is not recorded could not be cancelled
        runs = scheduler.submit_runs(folder, options, len(prepared.tasks))
        one = Submission(prepared.engine, runs, "", prepared.tasks, submitted, options.seconds)
        write_record(folder, [*record, one])
    if options.report != "none":
        try:
            one = one._replace(report=scheduler.submit_report(folder, options, runs))
        except KavaError as error:
            raise KavaError(
                f"the runs are submitted (job {runs}), and their report is not: {error}; write it "
                f"by kava study report {folder}"
            ) from error
        write_record(folder, [*record, one])
    return one


def scripts_text(prepared: Prepared) -> str:
    """The scripts as a dry run prints them."""
    texts = [f"# ==> {path}\n{text}" for path, text in prepared.scripts.items()]
    return "\n".join([*texts, f"# submitted by: {by_hand(prepared)}"])


def by_hand(prepared: Prepared) -> str:
    """The command that submits the runs."""
    count = len(prepared.tasks)
    return prepared.scheduler.by_hand(prepared.folder, prepared.options, count)
