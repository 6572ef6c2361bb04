"""`kava cluster`: submit a study to a scheduler, watch its jobs, and check the cluster before."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kava.cluster.flags import (
    PARTS,
    USAGE,
    CheckConfig,
    ChosenConfig,
    FolderConfig,
    LogsConfig,
    ModelsConfig,
    MonitorConfig,
    SubmitConfig,
)
from kava.cluster.options import SECTIONS
from kava.files.outputs import check_output, check_output_folder
from kava.inputs import read_text


def main(argv: list[str]) -> int:
    """Parse flags and do what is asked for.

    Returns:
        0 when everything went well; 1 if `check` or `models` found something that is missing.

    Raises:
        ValueError: a bad plan or folder.
        KavaError: no scheduler, or one that refuses.
    """
    part, rest = USAGE.choose(argv)
    actions: dict[str, Callable[[Any, Sequence[str]], int]] = {
        "submit": _submit,
        "status": _status,
        "logs": _logs,
        "cancel": _cancel,
        "monitor": _monitor,
        "check": _check,
        "models": _models,
    }
    return actions[part](USAGE.parts[part].parse(rest), argv)


def _submit(args: SubmitConfig, argv: Sequence[str]) -> int:
    from kava.cluster.engines import scheduler_of
    from kava.study.plan_file import find_plan, load_plan

    if not args.dry_run:  # scripts can be looked at anywhere
        scheduler_of(args.engine)[1].check(args, 1)  # before torch is loaded
    plan, path = load_plan(args.plan), find_plan(args.plan)
    with PARTS["submit"].refusing():
        arms = plan.choose(args.arms)
        plan.check_seeds(args.seeds or ())
    from kava.cluster.submit import by_hand, prepare, scripts_text, submit
    from kava.models.quiet import quiet_libraries
    from kava.study.folder import default_folder
    from kava.study.inputs import check_inputs

    quiet_libraries()
    check_inputs(plan, arms, path)
    folder = Path(args.output_dir) if args.output_dir else default_folder(plan)
    check_output_folder(folder, "--output_dir")
    prepared = prepare(plan, folder, args, arms=args.arms, seeds=args.seeds, anywhere=args.dry_run)
    if args.dry_run:
        print(scripts_text(prepared))
        for line in prepared.notes:
            print(f"# {line}")
        return 0
    command = shlex.join(["kava", "cluster", *argv])
    done = submit(prepared, plan, source=read_text(path), command=command)
    kept = f", {prepared.num_finished} finished before" if prepared.num_finished else ""
    print(f"{plan.name}: {len(done.tasks)} runs{kept}, submitted to {done.engine} as {done.runs}")
    if done.report:
        print(f"report: job {done.report}, {args.report}")
    for line in prepared.notes:
        print(line)
    print(f"scripts: {folder / 'cluster'}; by hand: {by_hand(prepared)}")
    print(f"next: kava cluster status {folder}")
    return 0


def _look(folder: Path) -> tuple[str, bool]:
    """The table of a submitted study, and whether all of its runs have ended."""
    from kava.cluster.engines import scheduler_of
    from kava.cluster.record import last_submission
    from kava.cluster.standing import report_job, standing_table, standings
    from kava.study.folder import read_locked_plan

    plan, last = read_locked_plan(folder), last_submission(folder)
    found = standings(plan, folder, last)
    jobs = scheduler_of(last.engine)[1].jobs(last, folder.absolute())
    head = f"{plan.name}: job {last.runs} of {last.engine}, submitted {last.submitted}"
    table = standing_table(found, report_job(jobs))
    return f"{head}\n{table}", all(one.has_ended for one in found)


def _status(args: FolderConfig, argv: Sequence[str]) -> int:
    print(_look(Path(args.folder))[0])
    return 0


def _monitor(args: MonitorConfig, argv: Sequence[str]) -> int:
    from kava.machine.programs import Unreachable

    while True:
        try:
            table, has_ended = _look(Path(args.folder))
        except Unreachable as error:
            if not args.auto:
                raise
            print(
                f"{time.strftime('%H:%M:%S')} {error}; asked again in {args.every:g} s", flush=True
            )
            time.sleep(args.every)
            continue
        if args.auto and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        print(f"{time.strftime('%H:%M:%S')} {table}", flush=True)
        if has_ended or not args.auto:
            return 0
        time.sleep(args.every)


def _chosen(args: ChosenConfig, part: str) -> list[int] | None:
    """The numbers of the tasks that --arms and --seeds choose; None: all of them."""
    from kava.cluster.record import last_submission
    from kava.study.folder import read_locked_plan

    folder = Path(args.folder)
    plan, last = read_locked_plan(folder), last_submission(folder)
    with PARTS[part].refusing():
        arms = {arm.name for arm in plan.choose(args.arms)}
        plan.check_seeds(args.seeds or ())
    if args.arms is None and args.seeds is None:
        return None
    chosen = [
        number
        for number, (arm, seed) in enumerate(last.tasks)
        if arm in arms and (args.seeds is None or seed in args.seeds)
    ]
    if not chosen:
        raise ValueError(f"none of these runs was submitted with job {last.runs}")
    return chosen


def _logs(args: LogsConfig, argv: Sequence[str]) -> int:
    from kava.cluster.record import last_submission
    from kava.cluster.standing import log_paths, tail

    chosen, last = _chosen(args, "logs"), last_submission(Path(args.folder))
    for number in range(len(last.tasks)) if chosen is None else chosen:
        for path in log_paths(Path(args.folder), *last.tasks[number]):
            lines = tail(path, args.lines)
            if lines:
                print("\n".join([f"==> {path}", *lines]))
    return 0


def _cancel(args: ChosenConfig, argv: Sequence[str]) -> int:
    from kava.cluster.engines import scheduler_of
    from kava.cluster.record import last_submission
    from kava.format import counted

    tasks, last = _chosen(args, "cancel"), last_submission(Path(args.folder))
    folder, scheduler = Path(args.folder).absolute(), scheduler_of(last.engine)[1]
    wanted = {"report", *range(len(last.tasks))} if tasks is None else set(tasks)
    jobs = scheduler.jobs(last, folder)
    if not any(job.is_active for key, job in jobs.items() if key in wanted):
        print(f"job {last.runs} of {last.engine} has ended: there is nothing to cancel")
        return 0
    scheduler.cancel(last, folder, tasks)
    count = counted(len(last.tasks) if tasks is None else len(tasks), "run")
    print(f"job {last.runs} of {last.engine}: {count} cancelled; they save their step")
    return 0


def _check(args: CheckConfig, argv: Sequence[str]) -> int:
    from kava.cluster.preflight import ERROR, WARNING, Preflight
    from kava.cluster.store import store_folder
    from kava.files.write import write_whole
    from kava.study.folder import default_folder
    from kava.study.plan_file import find_plan, load_plan

    check_output(args.output)
    if args.output_dir is not None:
        check_output_folder(args.output_dir, "--output_dir")
    plan = None if args.plan is None else load_plan(args.plan)
    folder = Path(args.output_dir) if args.output_dir else None
    folder = folder or (Path("outputs/study") if plan is None else default_folder(plan))
    path = None if args.plan is None else find_plan(args.plan)
    only = args.only or SECTIONS
    look = Preflight(args, plan, path, folder.absolute(), store_folder(args.store), only)
    text: list[str] = []
    count = {ERROR: 0, WARNING: 0}
    for title, lines in look.sections():
        text.append(f"== {title}")
        for line in lines:
            text.append(f"{line.level:<8} {line.text}")
            count[line.level] = count.get(line.level, 0) + 1
    text.append(f"errors {count[ERROR]}, warnings {count[WARNING]}")
    print("\n".join(text))
    write_whole(args.output, "\n".join(text) + "\n")
    print(f"report: {args.output}")
    return 1 if count[ERROR] else 0


def _models(args: ModelsConfig, argv: Sequence[str]) -> int:
    from kava.cluster.store import find_model, models_of, store_folder
    from kava.format import columns, file_size
    from kava.study.plan_file import load_plan

    plan, store = load_plan(args.plan, check_settings=False), store_folder(args.store)
    found = [find_model(name, store) for name in models_of(plan)]
    rows = [("model", "size", "place")]
    rows += [
        (
            one.name,
            "–"
            if one.place is None
            else "built in"
            if one.is_builtin
            else file_size(one.num_bytes),
            "missing" if one.place is None else str(one.place),
        )
        for one in found
    ]
    print("\n".join(columns(rows, left=3)))
    wanted = [one for one in found if one.how]
    for one in wanted:
        print(f"{one.name}: {one.how}")
    return 1 if wanted else 0
