"""Checks before a study is submitted: the cluster, this Python, models, data and the disk."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kava.cluster.engines import detect_engine, scheduler_of
from kava.cluster.options import SECTIONS, JobOptions
from kava.cluster.scripts import check_venv, render_scripts
from kava.cluster.slurm import partitions
from kava.cluster.store import find_model, models_of, store_folder
from kava.errors import USER_ERRORS, KavaError, describe
from kava.flags import listed, near
from kava.format import counted, file_size
from kava.machine.durations import clock
from kava.machine.programs import call_or_none
from kava.machine.scheduler import scheduler_of_job
from kava.models.accelerators import accelerators, why_no_cuda
from kava.study.plan import Plan

OK, WARNING, ERROR = "ok", "warning", "error"
LEAST_PYTHON = (3, 11)
CHECKPOINTS, COPIES = 3, 3
"""Of a run: checkpoints at a time, and the weights in each with the two moments of AdamW."""


class Line(NamedTuple):
    """One thing that was looked at: ok, a warning or an error, and in words."""

    level: str
    text: str


@dataclass
class Preflight:
    """What is looked at.

    Args:
        options: of the jobs.
        plan: the study; None: the cluster alone.
        plan_path: its file.
        folder: of the study, for the free disk.
        store: the shared store of models.
        only: the sections that are looked at.
    """

    options: JobOptions
    plan: Plan | None
    plan_path: Path | None
    folder: Path
    store: Path | None = field(default_factory=lambda: store_folder(None))
    only: Sequence[str] = SECTIONS

    @property
    def engine(self) -> str | None:
        """The scheduler that is asked for, or that is there."""
        return self.options.engine or detect_engine()

    def sections(self) -> Iterator[tuple[str, list[Line]]]:
        """Each section with its lines; one that fails by itself has an error."""
        parts: dict[str, Callable[[], Iterator[Line]]] = {
            "scheduler": self._scheduler,
            "partitions": self._partitions,
            "gpus": self._gres,
            "accounts": self._quota,
            "python": self._python,
            "models": self._models,
            "data": self._data,
            "disk": self._disk,
            "scripts": self._scripts,
        }
        for title in SECTIONS:
            if title not in self.only:
                continue
            part = parts[title]
            lines: list[Line] = []
            try:
                lines.extend(part())
            except USER_ERRORS as error:
                lines.append(Line(ERROR, describe(error)))
            yield title, lines

    def _scheduler(self) -> Iterator[Line]:
        engine = self.engine
        if engine is None:
            yield Line(ERROR, scheduler_error())
            return
        scheduler_of(engine)[1].check(self.options, 1)
        if engine == "slurm":
            yield Line(
                OK, f"{call_or_none(['sbatch', '--version']) or 'Slurm'}, its controller answers"
            )
        else:
            yield Line(OK, {"pbs": "qsub is there", "local": "processes of this machine"}[engine])
        inside = scheduler_of_job()
        if inside is not None and inside.name != "kubernetes":  # whose pods can be login nodes
            text = f"this is inside a job of {inside.title} ({inside.reason}), not a login node"
            yield Line(WARNING, text)

    def _partitions(self) -> Iterator[Line]:
        if self.engine != "slurm":
            yield Line(OK, "none without Slurm")
            return
        wanted = (self.options.partition or "").split(",")
        for name, one in partitions().items():
            limit = "no limit" if one.seconds is None else clock(one.seconds)
            text = f"{name}: {counted(one.nodes, 'node')}, {limit}"
            chosen = name in wanted or (wanted == [""] and one.is_default)
            down = not one.is_up
            level = (ERROR if chosen else WARNING) if down else OK
            yield Line(level, text + (", down" if down else "") + (", chosen" if chosen else ""))

    def _gres(self) -> Iterator[Line]:
        if self.engine != "slurm":
            yield Line(OK, "spelled as the cluster's documentation says")
            return
        known = sorted(set().union(*(one.gres for one in partitions().values())))
        yield Line(OK, f"the cluster has {listed(known) if known else 'no gres'}")
        if self.options.gres is None:
            if known:
                yield Line(
                    WARNING, f"--gres is not given: runs get no GPU; such as {_one(known[0])}"
                )
            return
        for part in self.options.gres.split(","):
            names = {re.sub(r":\d+$", "", one) for one in known}
            names |= {name.partition(":")[0] for name in names}
            name = re.sub(r":\d+$", "", part)
            if name in names:
                yield Line(OK, f"--gres {part}")
            else:
                mend = f"; such as {_one(known[0])}" if known else ""
                yield Line(
                    ERROR, f"--gres {part!r} is not on this cluster{near(name, names)}{mend}"
                )

    def _quota(self) -> Iterator[Line]:
        user = os.environ.get("USER") or str(os.getuid())
        form = "format=account,qos,grptresmins"
        said = call_or_none(["sacctmgr", "-nP", "show", "assoc", f"user={user}", form])
        accounts = {line.split("|")[0] for line in (said or "").splitlines() if line}
        if accounts:
            yield Line(OK, f"accounts of {user}: {listed(sorted(accounts))}")
            if self.options.account is not None and self.options.account not in accounts:
                text = f"--account {self.options.account!r} is none of them"
                yield Line(ERROR, text + near(self.options.account, accounts))
        else:
            yield Line(OK, "the cluster keeps no accounts that can be asked for")
        quota = call_or_none(["quota", "-s"])
        yield Line(OK, " ".join((quota or "quota of the disk: not known here").split()))

    def _python(self) -> Iterator[Line]:
        import torch
        import transformers

        level = OK if sys.version_info >= LEAST_PYTHON else ERROR
        yield Line(level, f"Python {platform.python_version()} at {sys.executable}")
        yield Line(OK, f"torch {torch.__version__}, transformers {transformers.__version__}")
        found = accelerators()
        missing = why_no_cuda()
        if missing is None:
            yield Line(OK, f"CUDA {torch.version.cuda}: {listed(str(one) for one in found)}")
        elif found:
            yield Line(OK, listed(str(one) for one in found))
        elif self.options.gres is None:
            yield Line(OK, "no GPU here, and none asked for")
        elif torch.version.cuda is None:
            yield Line(ERROR, "this torch is built without CUDA, and --gres asks for GPUs")
        else:
            yield Line(OK, f"torch for CUDA {torch.version.cuda}; no GPU here, as on login nodes")
        check_venv(self.options)

    def _models(self) -> Iterator[Line]:
        if self.plan is None:
            yield Line(OK, "no plan was given")
            return
        for name in models_of(self.plan):
            found = find_model(name, self.store)
            if found.place is None:
                yield Line(ERROR, f"{name}: not here; {found.how}")
            elif found.how:
                yield Line(ERROR, f"{name}: {file_size(found.num_bytes)}, but {found.how}")
            else:
                size = "built in" if found.is_builtin else file_size(found.num_bytes)
                yield Line(OK, f"{name}: {size}")

    def _data(self) -> Iterator[Line]:
        if self.plan is None or self.plan_path is None:
            yield Line(OK, "no plan was given")
            return
        from kava.data.sources import is_local
        from kava.study.inputs import check_inputs

        check_inputs(self.plan, self.plan.arms, self.plan_path)
        for name in (self.plan.data.train, self.plan.data.test):
            if is_local(name):
                yield Line(OK, f"{name}: read")
            else:
                text = f"{name}: from the hub, not looked at; compute nodes may have no network"
                yield Line(WARNING, text)

    def _disk(self) -> Iterator[Line]:
        there = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        if not os.access(there, os.W_OK):
            yield Line(ERROR, f"{there} cannot be written to")
        free = shutil.disk_usage(there).free
        text = f"{file_size(free)} free at {there}"
        if self.plan is None:
            yield Line(OK, text)
            return
        sizes = [find_model(name, self.store).num_bytes for name in models_of(self.plan)]
        runs = sum(len(self.plan.seeds_of(arm)) for arm in self.plan.arms)
        need = runs * CHECKPOINTS * COPIES * max(sizes)
        if not need:
            yield Line(OK, text)
            return
        level = OK if need <= free else WARNING
        yield Line(
            level, f"{text}; up to {file_size(need)} for {runs} runs, if all weights are trained"
        )

    def _scripts(self) -> Iterator[Line]:
        if self.plan is None or self.engine is None:
            yield Line(OK, "no plan was given" if self.plan is None else "no scheduler")
            return
        tasks = [(arm.name, seed) for arm in self.plan.arms for seed in self.plan.seeds_of(arm)]
        scheduler = scheduler_of(self.engine)[1]
        for path, text in render_scripts(
            self.plan.name, tasks, self.folder.absolute(), self.options, scheduler
        ).items():
            with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
                file.write(text)
                file.flush()
                done = subprocess.run(
                    ["bash", "-n", file.name], capture_output=True, text=True, check=False
                )
            wrong = " ".join(done.stderr.replace(file.name, path.name).split())
            yield Line(ERROR, wrong) if done.returncode else Line(OK, f"{path.name}: valid shell")


def scheduler_error() -> str:
    """What is said where there is no scheduler."""
    try:
        scheduler_of(None)
    except KavaError as error:
        return str(error)
    return ""


def _one(gres: str) -> str:
    """One GPU of a kind, as it is asked for."""
    return re.sub(r":\d+$", "", gres) + ":1"
