"""Runs under the script of their jobs, stopped twice, end as if they had not been."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from cluster.real import last_step, same_as_alone, small, stops, wait_until
from kava.cluster.options import JobOptions
from kava.cluster.submit import prepare, submit
from kava.study.plan_file import load_plan
from study.test_plan import written


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [[0]])
def test_two_jobs_in_one_folder_meet_two_limits_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: list[int]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    plan_file, out = written(tmp_path, small(200)), tmp_path / "out"
    plan = load_plan(plan_file)
    prepared = prepare(plan, out, JobOptions(engine="local"), seeds=seeds)
    monkeypatch.setattr(type(prepared.scheduler), "submit_runs", lambda *_: "0")
    submit(prepared, plan, source=plan_file.read_text(), command="kava cluster submit")
    for first in range(0, len(prepared.tasks), 2):  # two at a time, as two nodes would
        pair = range(first, first + 2)
        jobs = {
            task: subprocess.Popen(["bash", str(out / "cluster/runs.sh"), str(task)])
            for task in pair
        }
        for limit in (0, 1):
            for task, process in jobs.items():
                arm, seed = prepared.tasks[task]
                name, folder = f"{arm}-{seed}", out / f"runs/{arm}/seed-{seed}"
                before = stops(out, name)[-1] if limit else 0
                wait_until(lambda: last_step(folder) >= before + 3)  # noqa: B023
                os.kill(process.pid, signal.SIGUSR1)
                wait_until(lambda: len(stops(out, name)) > limit)  # noqa: B023
        assert [process.wait() for process in jobs.values()] == [0, 0]
    for arm, seed in prepared.tasks:
        one, other = stops(out, f"{arm}-{seed}")
        assert 0 < one < other < 200
    same_as_alone(plan_file, out, tmp_path / "alone", "--seeds", *map(str, seeds))
    assert not (out / ".kava.lock").exists()
