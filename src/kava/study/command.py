"""`kava study`: run a plan, say where it stands, report it, and list the plans that there are."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from kava.inputs import read_text

Run = Callable[[argparse.Namespace, list[str]], int]


def main(argv: list[str]) -> int:
    """Parse flags and do what is asked for.

    Returns:
        0 when everything went well.

    Raises:
        ValueError: a bad plan, folder, arm or seed.
        KavaError: a run failed, or arms had different budgets.
    """
    args = parse(argv)
    todo: Run = args.todo
    return todo(args, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; unknown ones leave by `SystemExit(2)`."""
    parser = argparse.ArgumentParser(
        prog="kava study",
        description="Compare arms over seeds with equal budgets, by a plan that is written down "
        "before the first run.",
        allow_abbrev=False,
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="run|status|report|list")

    run = parts.add_parser("run", help="do the runs of a plan that are missing", allow_abbrev=False)
    run.add_argument("plan", metavar="PLAN", help="a YAML file, or the name of a shipped plan")
    run.add_argument("--output_dir", help="folder of the study (default outputs/study/NAME)")
    run.add_argument(
        "--jobs",
        type=_at_least_one,
        default=min(2, os.cpu_count() or 1),
        help="runs at a time, of one thread each (default %(default)s)",
    )
    run.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms")
    run.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these seeds")
    run.add_argument(
        "--dry_run",
        action="store_true",
        help="print the runs and the power to find the minimum effect; write and load nothing",
    )
    run.set_defaults(todo=_run)

    status = parts.add_parser("status", help="where the runs stand", allow_abbrev=False)
    status.add_argument("folder", metavar="FOLDER", help="of the study")
    status.set_defaults(todo=_status)

    report = parts.add_parser("report", help="write the page of a study", allow_abbrev=False)
    report.add_argument("folder", metavar="FOLDER", help="of the study")
    report.add_argument("--output", help="folder of the page (default: in the study's)")
    report.set_defaults(todo=_report)

    plans = parts.add_parser("list", help="the shipped plans and their questions")
    plans.set_defaults(todo=_list)
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    from kava.study.plan import find_plan, load_plan

    plan = load_plan(args.plan)
    from kava.study.folder import default_folder
    from kava.study.runner import check_outcome, run_study, study_runs

    folder = Path(args.output_dir) if args.output_dir else default_folder(plan)
    if args.dry_run:
        from kava.study.tables import plan_table

        arms = plan.arms if args.arms is None else [plan.arm(name) for name in args.arms]
        print(plan_table(plan, arms, args.seeds or plan.seeds))
        return 0
    from kava.quiet import quiet_libraries

    quiet_libraries()
    runs = study_runs(plan, folder, arms=args.arms, seeds=args.seeds)
    print(f"{plan.name}: {len(runs)} runs, {args.jobs} at a time, into {folder}", flush=True)
    outcome = run_study(
        plan,
        folder,
        runs,
        source=read_text(find_plan(args.plan)),
        command=shlex.join(["kava", "study", *argv]),
        num_jobs=args.jobs,
    )
    from kava.study.tables import detectable_lines, status_table

    print(status_table(plan, folder))
    check_outcome(outcome)
    for line in detectable_lines(plan, folder, outcome.results):
        print(line)
    print(f"report: kava study report {folder}")
    return 0


def _status(args: argparse.Namespace, argv: list[str]) -> int:
    from kava.study.fairness import unfair_differences
    from kava.study.folder import read_locked_plan
    from kava.study.runner import finished_results
    from kava.study.tables import detectable_lines, power_lines, status_table

    folder = Path(args.folder)
    plan = read_locked_plan(folder)
    results = finished_results(plan, folder)
    print(f"{plan.name}: {plan.question}\nplan hash  {plan.hash}")
    print(status_table(plan, folder))
    for line in [*power_lines(plan), *detectable_lines(plan, folder, results)]:
        print(line)
    for line in unfair_differences(plan, results):
        print(f"unfair: {line}")
    return 0


def _report(args: argparse.Namespace, argv: list[str]) -> int:
    from importlib import import_module

    # by name, since the report reads studies and so stands above them
    write_report = import_module("kava.report").write_report
    page = write_report(Path(args.folder), Path(args.output) if args.output else None)
    print(f"report: {page}")
    return 0


def _list(args: argparse.Namespace, argv: list[str]) -> int:
    from kava.study.plan import load_plan, shipped_plans

    plans = [load_plan(path, check_settings=False) for path in shipped_plans().values()]
    width = max(len(plan.name) for plan in plans)
    for plan in plans:
        print(f"{plan.name:<{width}}  {plan.question}")
    return 0
