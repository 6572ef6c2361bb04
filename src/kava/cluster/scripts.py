"""The scripts of a study's jobs: plain shell, one for the runs and one for the report.

Each task of the first does one run by `kava study run --shared`, the call that does it anywhere
else, so that the study's folder holds the same files as after a local run. Signals are passed on to
it; a run that was stopped ahead of a time limit is done again, and goes on from its checkpoint. A
task that meets three limits without a new checkpoint gives up.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from kava.cluster.options import JobOptions
from kava.cluster.schedulers import FOLDER, Scheduler

TEMPLATES = Path(__file__).parent / "templates"


def script_paths(folder: Path, scheduler: Scheduler) -> tuple[Path, Path]:
    """The scripts of the runs and of the report in a study's folder."""
    place = folder / FOLDER
    return place / f"runs.{scheduler.suffix}", place / f"report.{scheduler.suffix}"


def render_scripts(
    name: str,
    tasks: Sequence[tuple[str, int]],
    folder: Path,
    options: JobOptions,
    scheduler: Scheduler,
) -> dict[Path, str]:
    """The text of each script, by its path.

    Args:
        name: of the study.
        tasks: arm and seed of each run, in the order of the tasks.
        folder: of the study; absolute.
        options: of the jobs.
        scheduler: that will run them.

    Example:
        >>> scripts = render_scripts("small", [("flat", 0)], folder, options, Slurm())
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=False,
        keep_trailing_newline=True,
        autoescape=False,  # shell, not HTML
    )
    runs, report = script_paths(folder, scheduler)
    quoted = shlex.quote(str(folder))
    shared = {
        "name": name,
        "study": quoted,
        "workdir": shlex.quote(os.getcwd()),
        "prologue": prologue(options),
        "python": "python" if options.venv else shlex.quote(sys.executable),
    }
    texts = {
        runs: environment.get_template("runs.sh.j2").render(
            **shared,
            head=scheduler.run_head(name, options, folder, len(tasks)),
            arms=" ".join(arm for arm, _ in tasks),
            seeds=" ".join(str(seed) for _, seed in tasks),
            task=scheduler.task,
            stopper=scheduler.stopper(options),
            again=scheduler.again(folder) if options.requeue else NOT_AGAIN,
            by_hand=scheduler.by_hand(folder, options, len(tasks)),
        )
    }
    if options.report != "none":
        texts[report] = environment.get_template("report.sh.j2").render(
            **shared,
            head=scheduler.report_head(name, options, folder),
            first=scheduler.before_report(folder),
        )
    return texts


NOT_AGAIN = [
    'echo "error: the time limit is near; step ${step:-0} is saved: submit the study again" >&2'
]


def prologue(options: JobOptions) -> list[str]:
    """The lines before a run: modules, environment, then the user's own."""
    lines = []
    if options.modules:
        lines.append(f"module load {shlex.join(options.modules)}")
    if options.venv:
        lines.append(f"source {shlex.quote(str(Path(options.venv).absolute()))}/bin/activate")
    return [*lines, *(options.prologue or [])]


def check_venv(options: JobOptions) -> None:
    """Refuse a virtual environment that a script could not activate.

    Raises:
        ValueError: it has no bin/activate.
    """
    if options.venv is not None and not (Path(options.venv) / "bin/activate").is_file():
        raise ValueError(f"--venv {options.venv} has no bin/activate: name a virtual environment")
