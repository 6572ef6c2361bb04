"""`kava demo`: run the plan of a demo as a study, print a table, and write pictures and a page."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kava.demo.settings import USAGE
from kava.files.outputs import check_output_folder
from kava.models.devices import check_device
from kava.stopping import Stopped

if TYPE_CHECKING:
    from kava.study.plan import Plan
    from kava.study.run import StudyRun

MEND = "pass --overwrite to begin anew in its place, or take another --output_dir"


def main(argv: list[str]) -> int:
    """Parse flags, run the study, and say what came out and where it is.

    Returns:
        0 when everything ran, whatever came out.

    Raises:
        ValueError: a device that is not there, or a folder with runs of other settings.
        KavaError: a run failed; it is named.
    """
    args = USAGE.parse(argv)
    check_device(args.device)
    demo, plan = args.demo(), args.plan()
    chosen = plan.choose(args.arms)
    folder = Path(args.output_dir or f"outputs/{demo.name}")
    check_output_folder(folder, "--output_dir")
    import yaml

    from kava.demo.present import present
    from kava.files.locks import lock_folder
    from kava.models.quiet import quiet_libraries
    from kava.study.runner import check_outcome, run_study, study_runs

    quiet_libraries()
    runs = study_runs(plan, folder, arms=[arm.name for arm in plan.arms if arm in chosen])
    print(
        f"{len(runs)} runs of {plan.budget.steps:,} steps, {args.jobs} at a time, into {folder}",
        flush=True,
    )
    command = shlex.join(["kava", "demo", *(flag for flag in argv if flag != "--overwrite")])
    with lock_folder(folder, "kava demo") as lock:
        if args.overwrite:
            remove_runs(plan, runs, folder)
        try:
            outcome = run_study(
                plan,
                folder,
                runs,
                source=yaml.safe_dump(plan.canonical(), sort_keys=False, allow_unicode=True),
                command=command,
                num_jobs=args.jobs,
                lock=lock,
                mend=MEND,
            )
        except Stopped as stop:
            if args.overwrite:
                stop.advice = f"{stop.advice}, without --overwrite"
            raise
        check_outcome(outcome)
        present(demo, runs, folder, command=command)
    return 0


def remove_runs(plan: Plan, runs: Sequence[StudyRun], folder: Path) -> None:
    """Remove these runs of a folder; all that it holds of a plan that is another."""
    from kava.study.folder import LOCK_FILE, RUNS_FOLDER, read_lock

    lock = folder / LOCK_FILE
    same = lock.is_file() and read_lock(folder)["plan_hash"] == plan.hash
    for path in [run.folder for run in runs] if same else [folder / RUNS_FOLDER]:
        shutil.rmtree(path, ignore_errors=True)
    if not same:
        lock.unlink(missing_ok=True)
