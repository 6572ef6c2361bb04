"""PBS: qsub, qstat, qdel, as OpenPBS and PBS Pro have them.

A task stops itself ahead of the limit, and is submitted again as a job of its own: requeuing
(`qrerun`) is left to operators there. The report waits for those jobs, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from kava.cluster.options import JobOptions
from kava.cluster.schedulers import (
    FOLDER,
    RESUBMITTED,
    Job,
    Submission,
    job_name,
    quoted,
    resubmitted,
)
from kava.errors import KavaError
from kava.flags import listed, near
from kava.machine.durations import HOUR, clock
from kava.machine.programs import Unreachable, call, call_or_none, has

STATES = {
    "Q": "pending", "H": "pending", "W": "pending", "T": "pending", "S": "suspended",
    "R": "running", "B": "running", "E": "completing", "C": "completed", "F": "completed",
    "X": "completed",
}  # fmt: skip


class Pbs:
    """Jobs of `qsub`: an array for the runs, and the report behind it."""

    suffix = "pbs"
    # a task that is submitted again; PBS Pro; Torque; the qsub of Slurm
    task = "${KAVA_TASK:-${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-$SLURM_ARRAY_TASK_ID}}}"

    def check(self, options: JobOptions, num_tasks: int) -> None:
        """Refuse a queue that does not exist, where qstat lists queues."""
        if not has("qsub"):
            raise Unreachable(
                "there is no qsub on this machine: submit from a login node of the cluster, or "
                "take --engine local"
            )
        known = queues()
        if options.partition is not None and known and options.partition not in known:
            raise KavaError(
                f"--partition {options.partition!r} does not exist"
                f"{near(options.partition, known)}: the cluster has {listed(known)}"
            )

    def run_head(self, name: str, options: JobOptions, folder: Path, num_tasks: int) -> list[str]:
        """The #PBS lines of the runs; the array is given to qsub, since a task is submitted again
        by the same script."""
        own = options.directive or []
        chunk = f"select=1:ncpus={options.cpus}"
        chunk += f":mem={options.mem}" if options.mem is not None else ""
        chunk += f":ngpus={_num_gpus(options.gres)}" if options.gres is not None else ""
        selected = any(re.match(r"-l\s*(select|nodes)=", line) for line in own)
        lines = [
            f"-N {job_name(name)}",
            *_place(options),
            *([] if selected else [f"-l {chunk}"]),
            f"-l walltime={clock(options.seconds)}",
            f"-r {'y' if options.requeue else 'n'}",
            "-j oe",
            f"-o {quoted(f'{folder / FOLDER}/logs/')}",
            *own,
        ]
        return [f"#PBS {line}" for line in lines]

    def report_head(self, name: str, options: JobOptions, folder: Path) -> list[str]:
        """The #PBS lines of the report."""
        lines = [
            f"-N {job_name(name)}-report",
            *_place(options),
            "-l select=1:ncpus=1",
            f"-l walltime={clock(min(options.seconds, HOUR))}",
            "-j oe",
            f"-o {quoted(f'{folder / FOLDER}/logs/')}",
        ]
        return [f"#PBS {line}" for line in lines]

    def before_report(self, folder: Path) -> list[str]:
        """Wait for the tasks that were submitted again."""
        return [
            "# Tasks that reached the limit were submitted again: wait for those that still go on.",
            "behind=",
            f'for id in $(cut -d " " -f 2 "$study/{FOLDER}/{RESUBMITTED}" 2> /dev/null); do',
            '  if said=$(qstat "$id" 2>&1); then',
            """    state=$(awk -v id="${id%%.*}" 'index($1, id) == 1 { print $5 }' <<< "$said")""",
            "  # the qstat of Slurm says of a job that has left by this code alone",
            '  elif [ "$? $said" = "153 " ] ||',
            '    grep -qi -e "unknown job" -e "has finished" <<< "$said"; then',
            "    state=",
            "  else",
            "    state=unknown",
            "  fi",
            '  case "$state" in "" | C | E | F | X) ;; *) behind="$behind:$id" ;; esac',
            "done",
            'if [ -n "$behind" ]; then',
            f'  exec qsub -W "depend=afterany$behind" "$study/{FOLDER}/report.pbs"',
            "fi",
        ]

    def stopper(self, options: JobOptions) -> str:
        """`timeout` sends the signal, which PBS does not."""
        seconds = options.seconds - options.grace
        return f"timeout --preserve-status --signal=USR1 {seconds} "

    def again(self, folder: Path) -> list[str]:
        """Submit the task again, as a job of its own."""
        return [
            f'id=$(qsub -v "KAVA_TASK=$task" "$study/{FOLDER}/runs.pbs") || exit 1',
            f'echo "$task $id" >> "$study/{FOLDER}/{RESUBMITTED}"',
            "exit 0",
        ]

    def by_hand(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """`qsub` with the array and the script."""
        return shlex.join(self._command(folder, options, num_tasks))

    def _command(self, folder: Path, options: JobOptions, num_tasks: int) -> list[str]:
        at_once = "" if options.max_tasks is None else f"%{options.max_tasks}"
        # an array of one task is refused
        which = ["-J", f"0-{num_tasks - 1}{at_once}"] if num_tasks > 1 else ["-v", "KAVA_TASK=0"]
        return ["qsub", *which, str(folder / FOLDER / "runs.pbs")]

    def submit_runs(self, folder: Path, options: JobOptions, num_tasks: int) -> str:
        """Submit the array."""
        (folder / FOLDER / RESUBMITTED).unlink(missing_ok=True)  # of an earlier submission
        return call(self._command(folder, options, num_tasks))

    def submit_report(self, folder: Path, options: JobOptions, runs: str) -> str:
        """Submit the report. It waits for the end of the tasks in any case, since one that is
        submitted again has ended well."""
        behind = f"depend={options.report}:{runs}"
        return call(["qsub", "-W", behind, str(folder / FOLDER / "report.pbs")])

    def jobs(self, submission: Submission, folder: Path) -> Mapping[int | str, Job]:
        """The jobs that qstat lists.

        Raises:
            Unreachable: qstat is not there, does not answer, or refuses.
        """
        again = resubmitted(folder)
        found: dict[int | str, Job] = {}
        newest: dict[int | str, Job] = {}
        whole = None
        for line in _listed().splitlines():
            cells = line.split()
            if len(cells) < 5 or cells[4] not in STATES:
                continue
            number, task = _parts(cells[0])
            job = Job(cells[0], STATES[cells[4]], cells[3])
            if number == _parts(submission.report)[0]:
                found["report"] = job
            elif number == _parts(submission.runs)[0]:
                if task is None:
                    whole = job
                else:
                    found[task] = job
            newest |= {key: job for key, one in again.items() if number == _parts(one)[0]}
        if whole is not None:  # tasks without a line of their own stand where the array stands
            for key in range(len(submission.tasks)):
                found.setdefault(key, whole)
        return found | newest

    def cancel(self, submission: Submission, folder: Path, tasks: Sequence[int] | None) -> None:
        """`qdel`: runs are sent SIGTERM and save their step."""
        again = resubmitted(folder)
        if tasks is None:
            names = [submission.report, submission.runs, *again.values()]
        else:
            base, _, server = submission.runs.partition("[]")
            names = [again.get(task, f"{base}[{task}]{server}") for task in tasks]
        active = {job.id for job in self.jobs(submission, folder).values() if job.is_active}
        numbers = {_parts(name)[0] for name in active}
        wanted = [name for name in names if name and _parts(name)[0] in numbers]
        if wanted:
            call(["qdel", *wanted])


def _listed() -> str:
    """What qstat lists; with the tasks of arrays, where it knows of -t."""
    listed_tasks = call_or_none(["qstat", "-t"])
    if listed_tasks is not None:
        return listed_tasks
    try:
        return call(["qstat"])
    except Unreachable as error:
        if str(error) == "qstat refused: exit code 153":  # of Slurm, without a word: it has no job
            return ""
        raise


def queues() -> list[str]:
    """The names of the queues; none where qstat does not list them."""
    lines = (call_or_none(["qstat", "-Q"]) or "").splitlines()
    bar = next((i for i, line in enumerate(lines) if line.startswith("---")), None)
    return [] if bar is None else [line.split()[0] for line in lines[bar + 1 :] if line.strip()]


def _parts(name: str) -> tuple[str, int | None]:
    """The number of a job, and of its task: `12[3].server`, `12_3`."""
    found = re.match(r"(\d+)(?:[\[_](\d+)\]?)?", name)
    if found is None:
        return name, None
    return found[1], None if found[2] is None else int(found[2])


def _num_gpus(gres: str) -> int:
    last = gres.rpartition(":")[2]
    return int(last) if last.isdigit() else 1


def _place(options: JobOptions) -> list[str]:
    lines = [] if options.partition is None else [f"-q {options.partition}"]
    lines += [] if options.account is None else [f"-A {options.account}"]
    return lines + ([] if options.qos is None else [f"-l qos={options.qos}"])
