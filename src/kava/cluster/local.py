"""No scheduler: the same scripts as processes of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kava.cluster.options import JobOptions
from kava.cluster.schedulers import FOLDER, Job, Submission
from kava.errors import KavaError


class Local:
    """Processes behind the shell, in a session of their own; the report follows them."""

    suffix = "sh"
    task = "$1"

    def check(self, options: JobOptions, num_tasks: int) -> None:
        """Refuse what only a scheduler can give."""
        for name in ("partition", "account", "qos", "gres", "mem", "directive"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for a scheduler; leave it out with --engine local")

    def run_head(self, name: str, options: JobOptions, folder: Path, num_tasks: int) -> list[str]:
        """None."""
        return []

    def report_head(self, name: str, options: JobOptions, folder: Path) -> list[str]:
        """None."""
        return []

    def before_report(self, folder: Path) -> list[str]:
        """Nothing: it is started behind the runs."""
        return []

    def stopper(self, options: JobOptions) -> str:
        """`timeout` stands for the scheduler."""
        seconds = options.seconds - options.grace
        return f"timeout --preserve-status --signal=USR1 {seconds} "

    def again(self, folder: Path) -> list[str]:
        """The same script, in the same process."""
        return ['exec bash "$0" "$task"']

    def by_hand(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """A pipe that hands the tasks to a few processes."""
        runs, report = (shlex.quote(str(folder / FOLDER / f"{n}.sh")) for n in ("runs", "report"))
        then = {"afterok": f" && bash {report}", "afterany": f"; bash {report}", "none": ""}
        tasks = " ".join(map(str, range(num_tasks)))
        return (
            f"printf '%s\\n' {tasks} | xargs -P {options.max_tasks or 1} -n 1 bash {runs}"
            f"{then[options.report]}"
        )

    def submit_runs(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """Start them; the id is that of the process and of its session."""
        with open(folder / FOLDER / "logs" / "local.out", "ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", self.by_hand(folder, options, num_tasks)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return str(process.pid)

    def submit_report(self, folder: Path, options: JobOptions, runs: str) -> str:
        """Nothing more: it was started with the runs."""
        return ""

    def jobs(self, submission: Submission, folder: Path) -> Mapping[int | str, Job]:
        """All tasks share the process that was started."""
        state = "running" if _lives(submission, folder) else "completed"
        job = Job(submission.runs, state)
        return dict.fromkeys(range(len(submission.tasks)), job)

    def cancel(self, submission: Submission, folder: Path, tasks: Sequence[int] | None) -> None:
        """SIGTERM to all of them; runs save their step."""
        if tasks is not None:
            raise KavaError(
                "--engine local cancels all runs together: leave --arms and --seeds out"
            )
        if _lives(submission, folder):
            os.killpg(int(submission.runs), signal.SIGTERM)


def _lives(submission: Submission, folder: Path) -> bool:
    """Whether processes of this study are still running in the group: ids are used again."""
    group = int(submission.runs)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not Path("/proc/self/stat").is_file():
        return True
    script = str(folder / FOLDER / "runs.sh").encode()
    return any(script in words for words in _command_lines(group))


def _command_lines(group: int) -> Iterator[bytes]:
    """The command lines of a process group; processes that have ended have an empty one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # behind the name, which may hold anything: state, parent, group
            found = (folder / "stat").read_bytes().rpartition(b")")[2].split()[2]
            if int(found) == group:
                yield (folder / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
