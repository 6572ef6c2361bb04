"""`kava study`: run a plan, say where it stands, report it, and list the plans that there are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.files.outputs import check_output_folder
from kava.flags import Parts, Usage, flag
from kava.format import columns
from kava.inputs import read_text
from kava.study.flags import FolderConfig, PlanFlags

MOST_JOBS = 1024


@dataclass(kw_only=True)
class RunConfig(PlanFlags):
    """What `kava study run` is asked for.

    Raises:
        ValueError: a value outside its range.
    """

    jobs: int = flag(
        min(2, os.cpu_count() or 1),
        "runs at a time, of one thread each",
        least=1,
        most=MOST_JOBS,
    )
    shared: bool = flag(
        False,
        "admit other shared calls to the folder at the same time, such as the jobs of a cluster, "
        "each with other --arms and --seeds; only the runs of this call are spoken of",
    )
    dry_run: bool = flag(
        False,
        "check the plan, and its data and models where they are on this machine; print the runs "
        "and the power to find the minimum effect; write nothing",
    )


@dataclass(kw_only=True)
class ReportConfig(FolderConfig):
    """What `kava study report` is asked for."""

    output: str | None = flag(None, "folder of the page", unset="in the study's")


@dataclass(kw_only=True)
class ListConfig:
    """What `kava study list` and `kava curriculum list` are asked for: nothing."""


RUN = Usage(
    prog="kava study run",
    kind=RunConfig,
    summary="Do the runs of a plan that are missing.",
    example="kava study run flat_vs_structured --jobs 2",
)
STATUS = Usage(
    prog="kava study status",
    kind=FolderConfig,
    summary="Say where the runs stand.",
    example="kava study status outputs/study/flat_vs_structured",
)
REPORT = Usage(
    prog="kava study report",
    kind=ReportConfig,
    summary="Write the page of a study.",
    example="kava study report outputs/study/flat_vs_structured",
)
PACK = Usage(
    prog="kava study pack",
    kind=FolderConfig,
    summary="Put the logs of all runs into one small file, which status and report read as well; "
    "students are not packed.",
    example="kava study pack outputs/study/flat_vs_structured",
)
LIST = Usage(
    prog="kava study list",
    kind=ListConfig,
    summary="List the shipped plans and their questions.",
    example="kava study list",
)
USAGE = Parts(
    prog="kava study",
    summary="Compare arms over seeds with equal budgets, by a plan that is written down before the "
    "first run.",
    parts={"run": RUN, "status": STATUS, "report": REPORT, "pack": PACK, "list": LIST},
    example="kava study run flat_vs_structured",
)


def main(argv: list[str]) -> int:
    """Parse flags and do what is asked for.

    Returns:
        0 when everything went well.

    Raises:
        ValueError: a bad plan or folder.
        KavaError: a run failed, or arms had different budgets.
    """
    part, rest = USAGE.choose(argv)
    actions: dict[str, Callable[[Any, Sequence[str]], int]] = {
        "run": _run,
        "status": _status,
        "report": _report,
        "pack": _pack,
        "list": _list,
    }
    return actions[part](USAGE.parts[part].parse(rest), argv)


def _run(args: RunConfig, argv: Sequence[str]) -> int:
    from kava.study.plan_file import find_plan, load_plan

    plan = load_plan(args.plan)
    from kava.study.folder import default_folder
    from kava.study.runner import check_outcome, run_study, study_runs

    folder = Path(args.output_dir) if args.output_dir else default_folder(plan)
    with RUN.refusing():
        arms = plan.choose(args.arms)
        plan.check_seeds(args.seeds or ())
    from kava.models.quiet import quiet_libraries

    quiet_libraries()
    from kava.study.inputs import check_inputs

    check_inputs(plan, arms, find_plan(args.plan))
    if args.dry_run:
        from kava.study.tables import plan_table

        print(plan_table(plan, arms, args.seeds or plan.seeds))
        return 0
    check_output_folder(folder, "--output_dir")
    runs = study_runs(plan, folder, arms=args.arms, seeds=args.seeds)
    print(f"{plan.name}: {len(runs)} runs, {args.jobs} at a time, into {folder}", flush=True)
    outcome = run_study(
        plan,
        folder,
        runs,
        source=read_text(find_plan(args.plan)),
        command=shlex.join(["kava", "study", *argv]),
        num_jobs=args.jobs,
        shared=args.shared,
    )
    if args.shared:
        check_outcome(outcome)
        return 0
    from kava.study.tables import detectable_lines, status_table

    print(status_table(plan, folder))
    check_outcome(outcome)
    for line in detectable_lines(plan, folder, outcome.results):
        print(line)
    print(f"report: kava study report {folder}")
    return 0


def _status(args: FolderConfig, argv: Sequence[str]) -> int:
    from kava.study.fairness import unfair_differences
    from kava.study.folder import read_locked_plan
    from kava.study.packed import unpacked
    from kava.study.power import power_lines
    from kava.study.runner import finished_results
    from kava.study.tables import detectable_lines, status_table

    plan = read_locked_plan(Path(args.folder))
    with unpacked(Path(args.folder)) as folder:
        results = finished_results(plan, folder)
        print(f"{plan.name}: {plan.question}\nplan hash  {plan.hash}")
        print(status_table(plan, folder))
        try:
            planned = power_lines(plan)
        except ValueError as error:  # a pilot may have been moved since the plan was made
            planned = [f"power      not known: {error}"]
        for line in [*planned, *detectable_lines(plan, folder, results)]:
            print(line)
    for line in unfair_differences(plan, results):
        print(f"unfair: {line}")
    return 0


def _report(args: ReportConfig, argv: Sequence[str]) -> int:
    if args.output is not None:
        check_output_folder(args.output)
    from importlib import import_module

    # by name, since the report reads studies and so stands above them
    write_report = import_module("kava.report").write_report
    page = write_report(Path(args.folder), Path(args.output) if args.output else None)
    print(f"report: {page}")
    return 0


def _pack(args: FolderConfig, argv: Sequence[str]) -> int:
    from kava.study.packed import pack_runs

    folder = Path(args.folder)
    packed = pack_runs(folder)
    print(f"packed: {packed} ({packed.stat().st_size:,} bytes); {folder / 'runs'} may be removed")
    return 0


def _list(args: ListConfig, argv: Sequence[str]) -> int:
    from kava.study.plan_file import load_plan, shipped_plans

    plans = [load_plan(path, check_settings=False) for path in shipped_plans().values()]
    print("\n".join(columns([(plan.name, plan.question) for plan in plans], left=2)))
    return 0
