"""Do the runs of a study: those that are missing, a few at a time, whatever fails among them.

A full disk alone ends a study: what failed for it fails for the next run as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.errors import KavaError
from kava.files.locks import Lock, lock_folder
from kava.format import counted, percent, seconds
from kava.jobs.crew import Crew, Failure
from kava.jobs.fingerprint import fingerprint_of
from kava.jobs.progress import ProgressView
from kava.models.devices import check_device
from kava.stopping import Stopped
from kava.study.fairness import unfair_differences
from kava.study.folder import OTHER_FOLDER, lock_plan, read_result, run_folder
from kava.study.packed import check_unpacked
from kava.study.plan import Plan
from kava.study.run import StudyRun


@dataclass(frozen=True)
class Outcome:
    """What a call of `run_study` left.

    Attributes:
        results: of all finished runs, by arm and seed.
        failed: the name of each run that failed, and why.
        unfair: the differences in budget between arms.
    """

    results: dict[tuple[str, int], dict[str, Any]]
    failed: dict[str, str]
    unfair: list[str]


def study_runs(
    plan: Plan,
    folder: Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[StudyRun]:
    """The runs of a plan: seed by seed all arms, so that a study that is cut has whole pairs.

    Args:
        plan: the study.
        folder: of the study.
        arms: only these; None: all.
        seeds: only these; None: all.

    Raises:
        ValueError: an arm or a seed that the plan does not have.
    """
    chosen = plan.choose(arms)
    plan.check_seeds(seeds or ())
    prints = {
        arm.name: fingerprint_of(
            settings.get("model_name", "kava/shell-teacher"), settings.get("teacher_name")
        )
        for arm in chosen
        if (settings := {**plan.base, **arm.changes}) is not None
    }
    return [
        StudyRun(plan, arm, seed, folder, prints[arm.name])
        for seed in plan.seeds
        for arm in chosen
        if (seeds is None or seed in seeds) and seed in plan.seeds_of(arm)
    ]


def run_study(
    plan: Plan,
    folder: Path,
    runs: Sequence[StudyRun],
    *,
    source: str,
    command: str,
    num_jobs: int,
    lock: Lock | None = None,
    mend: str = OTHER_FOLDER,
) -> Outcome:
    """Lock the plan, and do the runs that are not finished.

    Args:
        plan: the study.
        folder: of the study.
        runs: what to do, in their order; see `study_runs`.
        source: the text of the plan's file.
        command: how the study was started.
        num_jobs: how many runs at a time.
        lock: of the folder, where the caller holds it.
        mend: what to do where the folder holds runs of another plan or with other settings.

    Raises:
        ValueError: a device that is not there, a folder with another plan, with finished runs of
            other settings, or with packed runs.
        KavaError: another `kava study run` is at work in the folder, or the disk takes no more.
        Stopped: a signal came; the runs at work have saved what they can go on from.
    """
    for device in {run.config.device for run in runs}:
        check_device(device)
    check_unpacked(folder)
    with nullcontext(lock) if lock else lock_folder(folder, "kava study run") as held:
        lock_plan(folder, plan, source, command, mend)
        kept = {run.name: result for run in runs if (result := run.finished(mend)) is not None}
        try:
            failed = _do(runs, kept, num_jobs, held)
        except Stopped as stop:
            done = sum(run.finished() is not None for run in runs)
            stop.advice = f"{done} of {len(runs)} runs are finished; the same command goes on"
            raise
        results = finished_results(plan, folder)
    return Outcome(results, failed, unfair_differences(plan, results))


def _do(
    runs: Sequence[StudyRun],
    kept: dict[str, dict[str, Any]],
    num_jobs: int,
    lock: Lock | None,
) -> dict[str, str]:
    """Do what is missing; what failed, and why."""
    missing = [run for run in runs if run.name not in kept]
    failed: dict[str, str] = {}
    ended = len(kept)
    with ProgressView(sum(run.num_steps for run in missing)) as view:
        for run in runs:
            if run.name in kept:
                view.say(f"{run.name}: {_told(kept[run.name])}, from an earlier call")
        crew = Crew(min(num_jobs, len(missing)), view, keep_going=True, lock=lock)
        try:
            for run, outcome in crew.do(missing):
                ended += 1
                if isinstance(outcome, Failure) and outcome.cannot_write:
                    with suppress(OSError):  # the very disk that is full
                        run.fail(outcome.reason)
                    raise KavaError(
                        f"{outcome.reason}; the other runs would fail alike and are left: once "
                        f"the disk takes more, the same command goes on"
                    )
                if isinstance(outcome, Failure):
                    failed[run.name] = outcome.reason
                    run.fail(outcome.reason)
                    view.say(f"[{ended}/{len(runs)}] {outcome.reason}")
                else:
                    view.say(f"[{ended}/{len(runs)}] {run.name}: {_told(outcome)}")
        finally:
            crew.end()
    return failed


def finished_results(plan: Plan, folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The results of all finished runs of a study.

    Raises:
        ValueError: a result that is damaged.
    """
    found = {
        (arm.name, seed): read_result(run_folder(folder, arm.name, seed))
        for arm in plan.arms
        for seed in plan.seeds_of(arm)
    }
    return {key: result for key, result in found.items() if result and result["finished"]}


def check_outcome(outcome: Outcome) -> None:
    """Say what is wrong with a study, line by line, and fail where anything is.

    Raises:
        KavaError: a run failed, or arms had different budgets.
    """
    for line in outcome.unfair:
        print(f"unfair: {line}", file=sys.stderr)
    if outcome.failed:
        names = "; ".join(outcome.failed)
        raise KavaError(
            f"{len(outcome.failed)} of the runs failed ({names}); the others are finished and "
            f"kept: mend the cause and give the same command again"
        )
    if outcome.unfair:
        differences = counted(len(outcome.unfair), "difference")
        raise KavaError(
            f"the arms had different budgets ({differences}, above): nothing can be said of them; "
            f"mend the plan and run it under another name"
        )


def _told(result: dict[str, Any]) -> str:
    return (
        f"{percent(result['accuracy'])} of {result['num_items']:,} answers right, "
        f"{seconds(result['train_seconds'])}"
    )
