"""Execute the missing runs of a study, a few at a time, and continue after failures.

Only a full disk stops a study, because the next run would fail for the same reason.
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
from kava.train.teacher_names import split_label


@dataclass(frozen=True)
class Outcome:
    """The outcome of `run_study`.

    Attributes:
        results: results of all finished runs, by arm and seed.
        failed: the reason for each failed run, by name.
        unfair: differences in budget between arms.
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
    """The runs of a plan, all arms seed by seed, so that an interrupted study has complete pairs.

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
            settings.get("model_name", "kava/shell-teacher"),
            settings.get("teacher_name"),
            [split_label(name)[1] for name in settings.get("teachers") or ()],
            settings.get("start_from"),
            settings.get("teacher_reasoning") or (),
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
    shared: bool = False,
    mend: str = OTHER_FOLDER,
) -> Outcome:
    """Lock the plan, and execute the runs that are not finished.

    Args:
        plan: the study.
        folder: of the study.
        runs: the runs to execute, in order; see `study_runs`.
        source: the text of the plan's file.
        command: the command line that started the study.
        num_jobs: number of parallel runs.
        lock: the folder's lock, if the caller holds it.
        shared: admit other shared calls, which do other runs of the same plan; of the budgets only
            the call that reports all runs can judge.
        mend: advice for the message if the folder holds runs of another plan or with other
            settings.

    Raises:
        ValueError: a missing device; a folder with another plan, with finished runs of other
            settings, or with packed runs.
        KavaError: another `kava study run` is running in the folder, or the disk is full.
        Stopped: a signal came; the active runs have saved a checkpoint where they could.
    """
    for device in {run.config.device for run in runs}:
        check_device(device)
    check_unpacked(folder)
    locking = lock_folder(folder, "kava study run", shared=shared)
    with nullcontext(lock) if lock else locking as held:
        lock_plan(folder, plan, source, command, mend)
        kept = {run.name: result for run in runs if (result := run.finished(mend)) is not None}
        try:
            failed = _do(runs, kept, num_jobs, held)
        except Stopped as stop:
            done = sum(run.finished() is not None for run in runs)
            stop.advice = f"{done} of {len(runs)} runs are finished; the same command goes on"
            raise
        results = finished_results(plan, folder)
    return Outcome(results, failed, [] if shared else unfair_differences(plan, results))


def _do(
    runs: Sequence[StudyRun],
    kept: dict[str, dict[str, Any]],
    num_jobs: int,
    lock: Lock | None,
) -> dict[str, str]:
    """Execute the missing runs; return the reason for each failed run."""
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
                    with suppress(OSError):  # this may be the disk that is full
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
    """Read the results of all finished runs of a study.

    Raises:
        ValueError: a damaged result.
    """
    found = {
        (arm.name, seed): read_result(run_folder(folder, arm.name, seed))
        for arm in plan.arms
        for seed in plan.seeds_of(arm)
    }
    return {key: result for key, result in found.items() if result and result["finished"]}


def check_outcome(outcome: Outcome) -> None:
    """Print the problems of a study, one per line, and fail if there are any.

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
