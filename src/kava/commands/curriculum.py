"""`kava curriculum`: train a student in phases, say what each added, write a phase as a study."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from kava import names
from kava.commands.study import ListConfig
from kava.curriculum.plan import check_phase, phase_named
from kava.files.outputs import check_output, check_output_folder
from kava.flags import Parts, Usage, again, check_fields, flag, needed
from kava.format import columns
from kava.inputs import read_text


@dataclass(kw_only=True)
class CurriculumRun:
    """What `kava curriculum run` is asked for.

    Raises:
        ValueError: a value outside its range.
    """

    plan: str = needed(
        "a YAML file, or the name of a shipped curriculum", positional=True, metavar="PLAN"
    )
    output_dir: str | None = flag(None, "folder of the curriculum", unset="outputs/curriculum/NAME")
    until: str | None = flag(
        None,
        "the last phase to run, by number or name; the same command without it goes on",
        metavar="PHASE",
        unset="the last of the plan",
        check=check_phase,
    )
    dry_run: bool = flag(
        False,
        "check the plan, and its data and models where they are on this machine; print the phases; "
        "write nothing",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True)
class CurriculumFolder:
    """What `kava curriculum status` is asked for: a curriculum that was begun."""

    folder: str = needed("of the curriculum", positional=True, metavar="FOLDER")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True)
class PlanConfig:
    """What `kava curriculum plan` is asked for."""

    plan: str = again(CurriculumRun, "plan", MISSING)
    phase: str = needed("the phase, by number or name", metavar="PHASE", check=check_phase)
    folder: str | None = flag(
        None,
        "folder of the curriculum, from whose students the study starts where the phase before is "
        "finished",
        unset="outputs/curriculum/NAME",
    )
    seeds: list[int] | None = flag(
        None, "seeds of the study", least=0, most=names.MOST_SEED, metavar="SEED", unset="five"
    )
    output: str | None = flag(None, "write the plan to this file", unset="print it")

    def __post_init__(self) -> None:
        check_fields(self)


RUN = Usage(
    prog="kava curriculum run",
    kind=CurriculumRun,
    summary="Run the phases of a plan in their order, each from the student of the last; finished "
    "ones are kept, and one that was cut goes on.",
    example="kava curriculum run shell",
)
STATUS = Usage(
    prog="kava curriculum status",
    kind=CurriculumFolder,
    summary="Say where the phases stand, and what the finished ones added.",
    example="kava curriculum status outputs/curriculum/shell",
)
PLAN = Usage(
    prog="kava curriculum plan",
    kind=PlanConfig,
    summary="Write a phase as the plan of a study: its settings against those of the phase before.",
    example="kava curriculum plan shell --phase 3 --output phase3.yaml",
)
LIST = Usage(
    prog="kava curriculum list",
    kind=ListConfig,
    summary="List the shipped curricula and their questions.",
    example="kava curriculum list",
)
USAGE = Parts(
    prog="kava curriculum",
    summary="Train a student in phases: one teacher under two prompts, several chains of thought "
    "of each question, other checkpoints, routing, a shared space.",
    parts={"run": RUN, "status": STATUS, "plan": PLAN, "list": LIST},
    example="kava curriculum run shell",
)


def main(argv: list[str]) -> int:
    """Parse flags and do what is asked for.

    Returns:
        0 when everything went well.

    Raises:
        ValueError: a bad plan or folder.
        KavaError: a phase failed.
    """
    part, rest = USAGE.choose(argv)
    actions: dict[str, Callable[[Any, Sequence[str]], int]] = {
        "run": _run,
        "status": _status,
        "plan": _plan,
        "list": _list,
    }
    return actions[part](USAGE.parts[part].parse(rest), argv)


def _run(args: CurriculumRun, argv: Sequence[str]) -> int:
    from kava.curriculum.plan_file import find_curriculum, load_curriculum

    curriculum = load_curriculum(args.plan)
    path = find_curriculum(args.plan)
    until = None if args.until is None else phase_named(args.until)
    with RUN.refusing():
        stages = curriculum.stages(until)
    from kava.models.quiet import quiet_libraries

    quiet_libraries()
    from kava.curriculum.folder import default_folder
    from kava.curriculum.run import check_curriculum_inputs, run_curriculum
    from kava.curriculum.summary import added_table
    from kava.curriculum.tables import plan_table

    check_curriculum_inputs(curriculum, stages, path)
    if args.dry_run:
        print(plan_table(curriculum, stages))
        return 0
    folder = Path(args.output_dir) if args.output_dir else default_folder(curriculum)
    check_output_folder(folder, "--output_dir")
    print(f"{curriculum.name}: {len(stages)} runs, one after the other, into {folder}", flush=True)
    added = run_curriculum(
        curriculum,
        folder,
        source=read_text(path),
        command=shlex.join(["kava", "curriculum", *argv]),
        until=until,
        say=lambda line: print(line, flush=True),
    )
    print(added_table(added))
    return 0


def _status(args: CurriculumFolder, argv: Sequence[str]) -> int:
    from kava.curriculum.folder import read_lock
    from kava.curriculum.plan_file import read_curriculum
    from kava.curriculum.summary import status_table
    from kava.files.locks import is_locked

    folder = Path(args.folder)
    curriculum = read_curriculum(read_lock(folder)["plan"])
    print(f"{curriculum.name}: {curriculum.question}\nplan hash  {curriculum.hash}")
    print(status_table(folder, curriculum, is_locked(folder)))
    return 0


def _plan(args: PlanConfig, argv: Sequence[str]) -> int:
    from kava.curriculum.plan_file import load_curriculum

    curriculum = load_curriculum(args.plan)
    with PLAN.refusing():
        phase = curriculum.phase(phase_named(args.phase))
    if args.output is not None:
        check_output(args.output)
    from kava.curriculum.folder import default_folder
    from kava.curriculum.tables import comparison_text
    from kava.files.locks import lock_file
    from kava.files.write import write_whole

    folder = Path(args.folder) if args.folder else default_folder(curriculum)
    text = comparison_text(curriculum, phase, folder, args.seeds)
    if args.output is None:
        print(text, end="")
    else:
        with lock_file(args.output, "kava curriculum plan"):
            write_whole(args.output, text)
        print(f"plan: {args.output}; next: kava study run {args.output} --dry_run")
    return 0


def _list(args: ListConfig, argv: Sequence[str]) -> int:
    from kava.curriculum.plan_file import load_curriculum, shipped_curricula

    plans = [load_curriculum(path, check_settings=False) for path in shipped_curricula().values()]
    print("\n".join(columns([(plan.name, plan.question) for plan in plans], left=2)))
    return 0
