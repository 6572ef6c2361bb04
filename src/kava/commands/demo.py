"""`kava demo`: train all arms, print a table, and write pictures and a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kava.demo.arms import Arm, Study, train_config
from kava.demo.settings import USAGE
from kava.files.outputs import check_output_folder
from kava.models.devices import check_device

if TYPE_CHECKING:
    from kava.demo.worker import RunJob


def main(argv: list[str]) -> int:
    """Parse flags, run the study, and say what came out and where it is.

    Returns:
        0 when everything ran, whatever came out.

    Raises:
        ValueError: a device that is not there.
        KavaError: a run failed; it is named.
    """
    args = USAGE.parse(argv)
    check_device(args.device)
    study = args.chosen_study()
    arms = study.choose(args.arms)
    steps = study.num_steps if args.steps is None else args.steps
    folder = Path(args.output_dir or f"outputs/{study.name}")
    check_output_folder(folder, "--output_dir")
    from kava.demo.present import present
    from kava.demo.runner import run_study
    from kava.files.locks import lock_folder
    from kava.models.quiet import quiet_libraries

    quiet_libraries()
    runs = plan_runs(
        study,
        arms,
        folder,
        num_steps=steps,
        num_seeds=args.seeds,
        num_items=args.num_items,
        model_name=args.model_name,
        device=args.device,
    )
    print(f"{len(runs)} runs of {steps:,} steps, {args.jobs} at a time, into {folder}", flush=True)
    command = shlex.join(["kava", "demo", *(flag for flag in argv if flag != "--overwrite")])
    with lock_folder(folder, "kava demo") as lock:
        results = run_study(runs, folder, num_jobs=args.jobs, overwrite=args.overwrite, lock=lock)
        present(study, arms, runs, results, folder, steps=steps, command=command)
    return 0


def plan_runs(
    study: Study,
    arms: Sequence[Arm],
    folder: Path,
    *,
    num_steps: int,
    num_seeds: int | None,
    num_items: int,
    model_name: str,
    device: str = "cpu",
) -> list[RunJob]:
    """The runs of a study: every arm with its seeds, each in a folder of its own."""
    from kava.demo.worker import RunJob
    from kava.jobs.fingerprint import fingerprint_of

    fingerprint = fingerprint_of(model_name, study.teacher_name)
    return [
        RunJob(
            arm.name,
            train_config(
                study,
                arm,
                seed,
                num_steps=num_steps,
                num_items=num_items,
                model_name=model_name,
                device=device,
                output_dir=folder / "runs" / f"{arm.name}-seed{seed}",
            ),
            num_items,
            fingerprint,
        )
        for arm in arms
        for seed in range(num_seeds or arm.num_seeds)
    ]
