"""`kava demo`: train all arms, print a table, and write pictures and a page."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kava.demo.arms import EVICTION, MAIN, TEACHER, Arm, Study, train_config

if TYPE_CHECKING:
    from kava.demo.report import Draw
    from kava.demo.results import Result, Summary
    from kava.demo.worker import RunJob

NUM_ITEMS = 1000


def main(argv: list[str]) -> int:
    """Parse flags, run the study, and say what came out and where it is.

    Returns:
        0 when everything ran, whatever came out.

    Raises:
        ValueError: a flag out of its range.
        KavaError: a run failed; it is named.
    """
    args = parse(argv)
    study = EVICTION if args.eviction else MAIN
    arms = study.choose(args.arms)
    steps = study.num_steps if args.steps is None else args.steps
    folder = Path(args.output_dir or f"outputs/{study.name}")
    from kava.demo.runner import run_study
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
    )
    print(f"{len(runs)} runs of {steps:,} steps, {args.jobs} at a time, into {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    results = run_study(runs, folder, num_jobs=args.jobs, overwrite=args.overwrite)
    command = shlex.join(["kava", "demo", *(flag for flag in argv if flag != "--overwrite")])
    present(study, arms, runs, results, folder, steps=steps, command=command)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; unknown ones leave by `SystemExit(2)`.

    Raises:
        ValueError: a number below 1.
    """
    parser = argparse.ArgumentParser(
        prog="kava demo",
        description="Train small students by different signals, with equal budgets, and show "
        "which of them learn to reason in latent tokens.",
        allow_abbrev=False,
        epilog=f"arms: {', '.join(arm.name for arm in MAIN.arms)}; with --eviction: "
        f"{', '.join(arm.name for arm in EVICTION.arms)}",
    )
    parser.add_argument(
        "--eviction",
        action="store_true",
        help="the second part: which 3 of 15 reasoning tokens to match the latents with",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"optimiser steps of a run (default {MAIN.num_steps}; {EVICTION.num_steps} with "
        f"--eviction)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="seeds of every arm (default: 2 for the KV and CODI arms, else 1)",
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
    parser.add_argument("--output_dir", help="default outputs/demo or outputs/demo-eviction")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="do all runs again, those too that an earlier call has finished",
    )
    parser.add_argument(
        "--model_name",
        default=TEACHER,
        help="the teacher, and where its students start (default %(default)s)",
    )
    args = parser.parse_args(argv)
    for name in ("steps", "seeds", "jobs", "num_items"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value} must be at least 1")
    return args


def plan_runs(
    study: Study,
    arms: Sequence[Arm],
    folder: Path,
    *,
    num_steps: int,
    num_seeds: int | None,
    num_items: int,
    model_name: str,
) -> list[RunJob]:
    """The runs of a study: every arm with its seeds, each in a folder of its own."""
    from kava.demo.worker import RunJob

    fingerprint = fingerprint_of(model_name)
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
                output_dir=folder / "runs" / f"{arm.name}-seed{seed}",
            ),
            num_items,
            fingerprint,
        )
        for arm in arms
        for seed in range(num_seeds or arm.num_seeds)
    ]


def fingerprint_of(model_name: str) -> dict[str, str]:
    """What decides a run beside its configuration: the libraries, and a local model's weights."""
    from kava.models import TRAINED_MODELS
    from kava.student.checkpoint import WEIGHTS_FILE, library_versions

    weights = TRAINED_MODELS.get(model_name, Path(model_name)) / WEIGHTS_FILE
    known = (
        {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()} if weights.is_file() else {}
    )
    return {**library_versions(), **known}


def present(
    study: Study,
    arms: Sequence[Arm],
    runs: Sequence[RunJob],
    results: Sequence[Result],
    folder: Path,
    *,
    steps: int,
    command: str,
) -> None:
    """Write results, pictures and the page; print the table, the verdict and where they are."""
    from kava.demo import pictures
    from kava.demo import results as told
    from kava.demo.kept import find_kept
    from kava.demo.report import budget_of, draw_pictures, render_report
    from kava.demo.strips import kept_tokens
    from kava.student.checkpoint import library_versions

    told.save_results(folder / "results.json", results)
    summaries = told.summarize(arms, results)
    by_name = {arm.name: arm for arm in arms}
    logs = [
        pictures.read_log(by_name[run.arm], result, run.folder)
        for run, result in zip(runs, results)
    ]
    draws: dict[str, Draw] = {"accuracy": partial(pictures.accuracy_by_arm, summaries)}
    reference = None
    if study is EVICTION:
        kept = find_kept(arms, {run.arm: run.config for run in runs})
        told.save_json(folder / "kept.json", asdict(kept))
        draws["kept"] = partial(kept_tokens, arms, kept)
        reference = told.reference_sentence(kept.teacher, summaries)
        verdict, expectations = told.eviction_verdict(summaries), []
    else:
        verdict = told.main_verdict(summaries)
        expectations = told.main_expectations(summaries)
    draws["curves"] = partial(pictures.accuracy_by_step, logs)
    if study is EVICTION:
        draws["losses"] = partial(pictures.kv_by_step, logs)
    else:
        draws["losses"] = partial(pictures.losses_by_step, logs)
        draws["passes"] = partial(pictures.accuracy_by_passes, summaries)
    page = render_report(
        study,
        summaries,
        draw_pictures(study, draws, folder),
        verdict=verdict,
        expectations=expectations,
        reference=reference,
        command=command,
        budget=budget_of(study, steps, results[0].num_items),
        versions=library_versions(),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    print(f"\n{table(summaries)}\n")
    for paragraph in filter(None, (verdict, reference)):
        print(textwrap.fill(paragraph, 100))
    for expectation in expectations:
        print(expectation)
    print(
        f"\npage:     {folder / 'report.html'}\n"
        f"numbers:  {folder / 'results.json'}\n"
        f"pictures: {', '.join(str(folder / f'{name}.png') for name in draws)}\n"
        f"runs:     {folder / 'runs'} (students, metrics, logs)"
    )


def table(summaries: Sequence[Summary]) -> str:
    """The results as a table of text."""
    from kava.demo.results import percent

    head = ("arm", "what it is", "seeds", "right", "95 % interval", "passes", "ms", "train s")
    rows = [
        (
            s.arm.name,
            s.arm.what,
            str(len(s.results)),
            percent(s.accuracy),
            f"{100 * s.low:.1f}–{percent(s.high)}",
            f"{s.forward_passes:.1f}",
            f"{s.milliseconds:.1f}",
            f"{s.train_seconds:.0f}",
        )
        for s in summaries
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (head, *rows)
    ]
    note = "passes and ms: per answer, one question at a time on one thread"
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:], note])
