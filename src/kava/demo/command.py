"""`kava demo`: train all arms, print a table, and write pictures and a page."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kava.demo.arms import (
    EVICTION,
    MAIN,
    NUM_LATENTS,
    TEACHER,
    Arm,
    Study,
    eviction_study,
    train_config,
)
from kava.demo.hetero import HETERO, HETERO_TEACHER, JOINT, RANK
from kava.devices import DEVICE_HELP, check_device

if TYPE_CHECKING:
    from kava.demo.worker import RunJob

NUM_ITEMS = 1000
NUM_LATENTS_CHOICES = (NUM_LATENTS, 5)
HETERO_STUDIES = {"maps": HETERO, "rank": RANK, "joint": JOINT}


def main(argv: list[str]) -> int:
    """Parse flags, run the study, and say what came out and where it is.

    Returns:
        0 when everything ran, whatever came out.

    Raises:
        ValueError: a flag out of its range, or flags that do not belong together.
        KavaError: a run failed; it is named.
    """
    args = parse(argv)
    check_device(args.device)
    study = study_of(args)
    arms = study.choose(args.arms)
    steps = study.num_steps if args.steps is None else args.steps
    folder = Path(args.output_dir or f"outputs/{study.name}")
    from kava.demo.present import present
    from kava.demo.runner import run_study
    from kava.locks import lock_folder
    from kava.quiet import quiet_libraries

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


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; unknown ones leave by `SystemExit(2)`.

    Raises:
        ValueError: a number below 1.
    """
    studies = {
        "": MAIN,
        "with --eviction": EVICTION,
        **{f"with --pair hetero --study {name}": s for name, s in HETERO_STUDIES.items()},
    }
    parser = argparse.ArgumentParser(
        prog="kava demo",
        description="Train small students by different signals, with equal budgets, and show "
        "which of them learn to reason in latent tokens.",
        allow_abbrev=False,
        epilog="arms: "
        + "; ".join(
            f"{when}: {', '.join(arm.name for arm in study.arms)}".removeprefix(": ")
            for when, study in studies.items()
        ),
    )
    parser.add_argument(
        "--pair",
        choices=("same", "hetero"),
        default="same",
        help="same: student and teacher are one model; hetero: the teacher has other layers, "
        "heads, positions and tokens (default %(default)s)",
    )
    parser.add_argument(
        "--study",
        choices=tuple(HETERO_STUDIES),
        help="of the pair hetero. maps: which map brings the teacher's cache to the student; "
        "rank: how many terms it needs; joint: whether it can learn beside the student (default "
        "maps)",
    )
    parser.add_argument(
        "--eviction",
        action="store_true",
        help="of the pair same: which of 15 reasoning tokens to match the latents with",
    )
    parser.add_argument(
        "--num_latents",
        type=int,
        choices=NUM_LATENTS_CHOICES,
        help=f"M, with --eviction (default {NUM_LATENTS})",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"optimiser steps of a run (default {MAIN.num_steps}; {EVICTION.num_steps} with "
        f"--eviction, {HETERO.num_steps} with --pair hetero)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="seeds of every arm (default 3; without --eviction and --pair hetero 2 for the KV "
        "and CODI arms, else 1)",
    )
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="runs at a time, of one thread each (default %(default)s)",
    )
    parser.add_argument(
        "--num_items",
        type=int,
        default=NUM_ITEMS,
        help="questions that every student answers in the end (default %(default)s)",
    )
    parser.add_argument("--output_dir", help=f"default outputs/{MAIN.name}, or as the study is")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="do all runs again, those too that an earlier call has finished",
    )
    parser.add_argument(
        "--model_name",
        default=TEACHER,
        help=f"where the students start, and their teacher; with --pair hetero that is "
        f"{HETERO_TEACHER} (default %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help=f"{DEVICE_HELP} (default %(default)s: models this small are quickest there)",
    )
    args = parser.parse_args(argv)
    for name in ("steps", "seeds", "jobs", "num_items"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value} must be at least 1")
    return args


def study_of(args: argparse.Namespace) -> Study:
    """The study that the flags ask for.

    Raises:
        ValueError: flags of different studies.
    """
    if args.pair == "hetero":
        for name in ("eviction", "num_latents"):
            if getattr(args, name):
                raise ValueError(f"--{name} belongs to --pair same; leave one of them out")
        return HETERO_STUDIES[args.study or "maps"]
    if args.study is not None:
        raise ValueError(f"--study {args.study} belongs to --pair hetero; add it")
    if args.num_latents is not None and not args.eviction:
        raise ValueError(f"--num_latents {args.num_latents} belongs to --eviction; add it")
    return eviction_study(args.num_latents or NUM_LATENTS) if args.eviction else MAIN


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
