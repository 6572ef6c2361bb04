"""Do the jobs of the demo, a few at a time.

A worker that fails, or is killed, ends the study and is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kava.demo.results import Outcome, Result
from kava.demo.worker import Cost, RunJob, TimingJob, finished, other_settings
from kava.files.locks import Lock
from kava.files.write import write_whole
from kava.format import percent
from kava.inputs import Malformed, read_json
from kava.jobs.crew import Crew
from kava.jobs.progress import ProgressView
from kava.stopping import Stopped

TIMING_FILE = "timing.json"


def run_study(
    runs: Sequence[RunJob],
    folder: Path,
    *,
    num_jobs: int,
    overwrite: bool,
    lock: Lock | None = None,
) -> list[Result]:
    """Train, test and time all students.

    Args:
        runs: what to train, in the order of the results.
        folder: of the study.
        num_jobs: how many runs at a time.
        overwrite: do runs again that an earlier call has finished with the same settings.
        lock: of the folder; the workers hold it too.

    Raises:
        ValueError: a folder holds a finished run with other settings.
        KavaError: a run failed; its name and its error, in one line.
    """
    if not overwrite:
        _check_nothing_is_lost(runs)
    done = {} if overwrite else {run.name: outcome for run in runs if (outcome := finished(run))}
    missing = [run for run in runs if run.name not in done]
    timing = TimingJob(tuple(runs), folder / "timing.log")
    costs = None if missing else _read_costs(folder / TIMING_FILE, runs)
    with ProgressView(sum(run.num_steps for run in missing)) as view:
        for count, (name, outcome) in enumerate(done.items(), start=1):
            view.say(f"[{count}/{len(runs)}] {name}: {_told(outcome)}, from an earlier call")
        crew = Crew(min(num_jobs, len(missing)) or int(costs is None), view, lock=lock)
        try:
            for run, outcome in crew.do(missing):
                done[run.name] = outcome
                view.say(f"[{len(done)}/{len(runs)}] {run.name}: {_told(outcome)}")
            if costs is None:
                ((_, costs),) = crew.do([timing])
                _save_costs(folder / TIMING_FILE, runs, costs)
        except Stopped as stop:
            stop.advice = (
                f"{len(done)} of {len(runs)} runs are finished; the same command, without "
                f"--overwrite, goes on"
            )
            raise
        finally:
            crew.end()
    return [
        Result(
            **asdict(done[run.name]),
            forward_passes=cost.forward_passes,
            seconds_per_answer=cost.seconds,
        )
        for run, cost in zip(runs, costs)
    ]


def _check_nothing_is_lost(runs: Sequence[RunJob]) -> None:
    for run in runs:
        difference = other_settings(run)
        if difference is not None:
            raise ValueError(
                f"{run.folder} holds a finished run with other settings ({difference}): pass "
                f"--overwrite to do it again in its place, or another --output_dir"
            )


def _told(outcome: Outcome) -> str:
    return f"{percent(outcome.accuracy)} of {outcome.num_items:,} answers right"


def _settings_hash(runs: Sequence[RunJob]) -> str:
    text = json.dumps([run.settings() for run in runs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_costs(path: Path, runs: Sequence[RunJob]) -> list[Cost] | None:
    """Earlier timings of the very same students, if there are any."""
    if not path.is_file():
        return None
    try:
        saved = read_json(path)
    except Malformed:
        return None
    if saved["settings_hash"] != _settings_hash(runs):
        return None
    return [Cost(**cost) for cost in saved["costs"]]


def _save_costs(path: Path, runs: Sequence[RunJob], costs: Sequence[Cost]) -> None:
    saved = {"settings_hash": _settings_hash(runs), "costs": [asdict(cost) for cost in costs]}
    write_whole(path, json.dumps(saved, indent=2) + "\n")
