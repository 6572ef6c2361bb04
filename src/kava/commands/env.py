"""`kava env`: what this machine and job have, and what KaVa chooses for them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kava.flags import Usage, check_fields, flag
from kava.flags.aliases import TRAINING
from kava.format import columns, counted, file_size
from kava.machine.allocation import Allocation, read_allocation
from kava.machine.durations import clock
from kava.machine.host import HostCores, HostMemory, cores_here, memory_here
from kava.machine.scheduler import LOCAL, FoundScheduler, find_scheduler
from kava.models.quiet import quiet_libraries
from kava.train.config import TrainConfig
from kava.train.flags import COMMON, ConfigFile, Given, gather, take_own
from kava.train.variables import KNOWN, SETTINGS, shown

if TYPE_CHECKING:
    from kava.models.accelerators import Accelerator, Missing
    from kava.train.choice import Choices

UNUSED = ", not used: a flag or a file says otherwise"


@dataclass(kw_only=True)
class EnvConfig(ConfigFile):
    """What is asked of `kava env` itself, beside a training configuration."""

    measure: bool = flag(
        True,
        "find the batch size by steps of the run, which loads its models and data; false where "
        "that does not belong, as on a login node",
        group="environment",
    )
    json: bool = flag(False, "print JSON")

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="kava env",
    kind=TrainConfig,
    beside=EnvConfig,
    summary="Show scheduler, job, host and devices, and choose device, precision and batch size.",
    example="kava env --model_name gpt2 --dataset_name gsm8k --overflow skip",
    known=TRAINING,
    common=("measure", "json", *COMMON),
    more="The flags of `kava train` are taken too, and mean the same; the batch size is that of "
    "the run which they describe. docs/environment.md lists the variables that are read.",
)


@dataclass(frozen=True)
class Machine:
    """What was found of this machine.

    Attributes:
        scheduler: whose job this is, or whose programs are here.
        job: what the job was given; None outside of one.
        cores: of the host.
        memory: of the host.
        devices: beside the CPU.
        no_cuda: why there is no CUDA device; None where there is one.
        variables: those of KaVa that are set.
    """

    scheduler: FoundScheduler
    job: Allocation | None
    cores: HostCores
    memory: HostMemory
    devices: list[Accelerator]
    no_cuda: Missing | None
    variables: dict[str, str]


def look(environ: Mapping[str, str]) -> Machine:
    """Look at this machine.

    Args:
        environ: the variables of this process.
    """
    from kava.models.accelerators import accelerators, why_no_cuda

    scheduler = find_scheduler(environ)
    job = read_allocation(scheduler, environ)
    return Machine(
        scheduler,
        job,
        cores_here(),
        memory_here(job),
        accelerators(),
        why_no_cuda(),
        {name: environ[name] for name in KNOWN if environ.get(name)},
    )


def main(argv: list[str]) -> int:
    """Parse flags, look at the machine, choose, and print both."""
    values = USAGE.read(argv)
    asked = EnvConfig(**take_own(values, EnvConfig))
    flags = dict(values)
    given = gather(USAGE, values)
    quiet_libraries()
    machine = look(os.environ)
    if not asked.json:
        print("\n".join(machine_lines(machine, given)), flush=True)

    from kava.train.choice import choose_settings

    chosen = choose_settings(USAGE, given, measure=asked.measure)
    command = _command(flags, chosen)
    if asked.json:
        print(json.dumps(_as_json(machine, given, chosen, command), ensure_ascii=False))
    else:
        print("\n".join(choice_lines(chosen, command)))
    return 0


def machine_lines(machine: Machine, given: Given) -> list[str]:
    """What was found, in the words of the command."""
    found = machine.scheduler
    where = "this is a job of it" if found.job else "this is no job of it"
    title = found.title if found.name == LOCAL else f"{found.title}, and {where}"
    rows = [("scheduler", f"{title} ({found.reason})")]
    if machine.job is not None:
        rows.append((f"job {machine.job.job}", job_text(machine.job)))
        rows += [("", note) for note in machine.job.notes]
    cores, memory = machine.cores, machine.memory
    why = f": {cores.reason}" if cores.reason else ""
    rows.append(("cores", f"{cores.usable} of {cores.total} can be used{why}"))
    text = f"{file_size(memory.available)} available of {file_size(memory.limit)}"
    if memory.limit < memory.total:
        text += f", on a host of {file_size(memory.total)}"
    rows.append(("memory", text + (f": {memory.reason}" if memory.reason else "")))
    rows += [("device", str(one)) for one in machine.devices]
    if machine.no_cuda is not None:
        no = machine.no_cuda
        rows.append(("device", f"no CUDA device is visible ({no.reason}); to have one, {no.mend}"))
    for name, value in machine.variables.items():
        setting = SETTINGS.get(name)
        taken = setting is None or given.origins.get(setting) == name
        rows.append(("variable", f"{name}={value}" + ("" if taken else UNUSED)))
    rows += [("variable", line) for line in given.unread]
    return columns(rows, left=2)


def job_text(job: Allocation) -> str:
    """The share of a job in words."""
    parts = [
        *([f"queue {job.queue}"] if job.queue else []),
        *(
            counted(count, thing)
            for count, thing in ((job.nodes, "node"), (job.processes, "task"))
            if count is not None
        ),
        *([f"{counted(job.cores, 'core')} here"] if job.cores is not None else []),
        *([f"{file_size(job.memory)} here"] if job.memory is not None else []),
        *([f"{counted(job.gpus, 'GPU')} here"] if job.gpus is not None else []),
    ]
    if job.limit is not None:
        left = "" if job.left is None else f", {clock(job.left)} left"
        parts.append(f"limit {clock(job.limit)}{left}")
    else:
        parts.append("no time limit that it tells")
    return ", ".join(parts)


def choice_lines(chosen: Choices, command: str) -> list[str]:
    """The choices in the words of the command."""
    config = chosen.config
    teacher = f", taught by {config.teacher_name}" if config.teacher_name else ""
    rows = [
        (one.name, "–" if one.value is None else str(one.value), f"{one.reason} [{one.origin}]")
        for one in chosen.choices
    ]
    head = f"chosen for {config.model_name}{teacher}, on {config.dataset_name}"
    return ["", head, *columns(rows, left=3), "", f"run: {command}"]


def _command(flags: Mapping[str, Any], chosen: Choices) -> str:
    """The call of `kava train` that takes what was chosen, with the flags that were given."""
    replaced = {"batch_size", "effective_batch_size"} if "batch_size" in chosen.added else set()
    kept = {name: value for name, value in flags.items() if name not in replaced}
    words = ["kava", "train"]
    for name, value in {**kept, **chosen.added}.items():
        words.append(f"--{name}")
        if isinstance(value, list):
            words += map(str, value)
        elif value is not True:
            words.append(shown(value))
    return shlex.join(words)


def _as_json(machine: Machine, given: Given, chosen: Choices, command: str) -> dict[str, Any]:
    found = machine.scheduler
    return {
        "scheduler": {"name": found.name, "in_job": found.job, "reason": found.reason},
        "job": None if machine.job is None else asdict(machine.job),
        "cores": machine.cores._asdict(),
        "memory": machine.memory._asdict(),
        "devices": [one._asdict() for one in machine.devices],
        "no_cuda": None if machine.no_cuda is None else machine.no_cuda.reason,
        "variables": machine.variables,
        "unread": given.unread,
        "model": chosen.config.model_name,
        "data": chosen.config.dataset_name,
        "choices": {
            one.name: {"value": one.value, "origin": one.origin, "reason": one.reason}
            for one in chosen.choices
        },
        "command": command,
    }
