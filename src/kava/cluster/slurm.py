"""Slurm: sbatch, squeue, sacct, scancel, scontrol."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from kava.cluster.options import JobOptions
from kava.cluster.schedulers import FOLDER, Job, Submission, job_name, quoted
from kava.errors import KavaError
from kava.flags import listed, near
from kava.machine.durations import HOUR, clock, seconds_of
from kava.machine.programs import Unreachable, call, call_or_none, has

NO_SLURM = (
    "there is no sbatch on this machine: submit from a login node of the cluster, or take --engine "
    "local"
)


class Slurm:
    """Jobs of `sbatch`: an array for the runs, and the report behind it."""

    suffix = "sbatch"
    task = "$SLURM_ARRAY_TASK_ID"

    def check(self, options: JobOptions, num_tasks: int) -> None:
        """Refuse a partition that does not exist, a limit above its own, and too many tasks."""
        if not has("sbatch"):
            raise Unreachable(NO_SLURM)
        known = partitions()
        if options.partition is not None:
            for name in options.partition.split(","):
                if name not in known:
                    raise KavaError(
                        f"--partition {name!r} does not exist{near(name, known)}: the cluster has "
                        f"{listed(known)}"
                    )
        default = next((n for n, one in known.items() if one.is_default), "")
        name = options.partition or default
        longest = known[name].seconds if name in known else None
        if longest is not None and options.seconds > longest:
            raise KavaError(
                f"--time {options.time} is more than the {clock(longest)} of partition {name!r}: "
                f"lower it; runs go on in further jobs"
            )
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]))
        if found is not None and num_tasks >= int(found[1]):
            raise KavaError(
                f"{num_tasks:,} runs are more than an array of this cluster holds "
                f"({int(found[1]) - 1:,}): submit some of the --seeds at a time"
            )

    def run_head(self, name: str, options: JobOptions, folder: Path, num_tasks: int) -> list[str]:
        """The #SBATCH lines of the runs."""
        logs = folder / FOLDER / "logs"
        at_once = "" if options.max_tasks is None else f"%{options.max_tasks}"
        lines = [
            f"--job-name={job_name(name)}",
            f"--array=0-{num_tasks - 1}{at_once}",
            *_place(options),
            *([] if options.gres is None else [f"--gres={options.gres}"]),
            f"--cpus-per-task={options.cpus}",
            *([] if options.mem is None else [f"--mem={options.mem}"]),
            f"--time={clock(options.seconds)}",
            f"--signal=B:USR1@{options.grace}",
            "--requeue" if options.requeue else "--no-requeue",
            "--open-mode=append",
            f"--output={quoted(str(logs / 'slurm-%A_%a.out'))}",
            *(options.directive or []),
        ]
        return [f"#SBATCH {line}" for line in lines]

    def report_head(self, name: str, options: JobOptions, folder: Path) -> list[str]:
        """The #SBATCH lines of the report."""
        lines = [
            f"--job-name={job_name(name)}-report",
            *_place(options),
            "--cpus-per-task=1",
            f"--time={clock(min(options.seconds, HOUR))}",
            f"--output={quoted(str(folder / FOLDER / 'logs' / 'slurm-%j.out'))}",
        ]
        return [f"#SBATCH {line}" for line in lines]

    def before_report(self, folder: Path) -> list[str]:
        """Nothing: a dependency waits for requeued tasks too."""
        return []

    def stopper(self, options: JobOptions) -> str:
        """Nothing: Slurm itself sends the signal."""
        return ""

    def again(self, folder: Path) -> list[str]:
        """Requeue the task, by its name in the array: its id may be that of the whole array."""
        return ['scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" && exit 0']

    def by_hand(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """`sbatch` with the script."""
        return f"sbatch {shlex.quote(str(folder / FOLDER / 'runs.sbatch'))}"

    def submit_runs(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """Submit the array."""
        return _id(call(["sbatch", "--parsable", str(folder / FOLDER / "runs.sbatch")]))

    def submit_report(self, folder: Path, options: JobOptions, runs: str) -> str:
        """Submit the report; it is cancelled where it can never start."""
        behind = [f"--dependency={options.report}:{runs}", "--kill-on-invalid-dep=yes"]
        return _id(call(["sbatch", "--parsable", *behind, str(folder / FOLDER / "report.sbatch")]))

    def jobs(self, submission: Submission, folder: Path) -> Mapping[int | str, Job]:
        """The jobs of the queue; those that have left it from the accounting, if there is one."""
        wanted = {submission.runs, submission.report} - {""}
        found: dict[int | str, Job] = {}
        accounting = ["sacct", "-n", "-X", "-P", "-o", "JobID,State,Elapsed"]
        for line in (call_or_none([*accounting, "-j", ",".join(wanted)]) or "").splitlines():
            name, state, elapsed = line.split("|")
            array, _, number = name.partition("_")
            if array in wanted and (number.isdigit() or array == submission.report):
                key: int | str = int(number) if number.isdigit() else "report"
                found[key] = Job(name, state.split()[0].lower(), elapsed)
        for line in self._queue(wanted):
            array, number, state, elapsed, reason = line.split("|", 4)
            if array == submission.runs and number.isdigit():
                name = f"{array}_{number}"
                found[int(number)] = Job(name, state.lower(), elapsed, _told(reason))
            elif array == submission.report:
                found["report"] = Job(array, state.lower(), elapsed, _told(reason))
        return found

    def _queue(self, wanted: set[str]) -> list[str]:
        form = "%F|%K|%T|%M|%r"
        try:
            said = call(["squeue", "-h", "-r", "-t", "all", "-o", form, "-j", ",".join(wanted)])
        except KavaError as error:
            if "Invalid job id" in str(error):  # all have ended, some time ago
                return []
            raise
        return said.splitlines()

    def cancel(self, submission: Submission, folder: Path, tasks: Sequence[int] | None) -> None:
        """`scancel`: runs are sent SIGTERM and save their step."""
        if tasks is None:
            names = [name for name in (submission.report, submission.runs) if name]
        else:
            names = [f"{submission.runs}_{task}" for task in tasks]
        call(["scancel", *names])


class Partition:
    """A partition: its limit in seconds, None where it has none, its GPUs and its nodes."""

    def __init__(self, seconds: int | None, is_default: bool, is_up: bool):
        self.seconds = seconds
        self.is_default = is_default
        self.is_up = is_up
        self.gres: set[str] = set()
        self.nodes = 0


def partitions() -> dict[str, Partition]:
    """The partitions of the cluster, by name.

    Raises:
        KavaError: the controller does not answer.
    """
    found: dict[str, Partition] = {}
    for line in call(["sinfo", "-h", "-o", "%P|%l|%a|%D|%G"]).splitlines():
        name, limit, state, nodes, gres = line.split("|")
        is_default = name.endswith("*")
        one = found.setdefault(
            name.rstrip("*"), Partition(_limit(limit), is_default, state == "up")
        )
        one.nodes += int(nodes)
        if gres != "(null)":
            one.gres |= set(re.sub(r"\([^()]*\)", "", gres).split(","))
    return found


def _limit(text: str) -> int | None:
    return None if text in ("infinite", "n/a", "UNLIMITED") else seconds_of(text)


def _place(options: JobOptions) -> list[str]:
    named = (("partition", options.partition), ("account", options.account), ("qos", options.qos))
    return [f"--{key}={value}" for key, value in named if value is not None]


def _id(said: str) -> str:
    """The id of `sbatch --parsable`, which may name the cluster behind it."""
    return said.splitlines()[-1].partition(";")[0]


def _told(reason: str) -> str:
    return "" if reason == "None" else reason
