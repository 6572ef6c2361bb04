"""`kava cluster monitor` and `cancel` by the states of jobs, and where no scheduler answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import fakes
from cluster.test_submit import calls, submit
from kava.cli import run
from kava.commands.cluster import main
from one_line import refusal

ENDED = (
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
"""States of Slurm that a job does not leave (`man squeue`, JOB STATE CODES)."""
WAITING = ("RESV_DEL_HOLD", "REQUEUE_FED", "POWER_UP_NODE", "REQUEUED", "STOPPED")

ONCE_SILENT = """
if mkdir "$FAKE/asked" 2> /dev/null; then
  echo "slurm_load_jobs error: Unable to contact slurm controller" >&2
  exit 1
fi
cat "$FAKE/queue"
"""


@pytest.fixture
def submitted(tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of the stand-ins, where a study of one run is submitted as job 41."""
    argv = submit(tmp_path, "--arms", "flat", "--seeds", "0", "--report", "none")
    assert run(main, argv) == 0
    capsys.readouterr()
    return slurm


def pausing(monkeypatch: pytest.MonkeyPatch, pause: Callable[[float], None]) -> None:
    """Have the command alone pause by this: waiting for a program sleeps too."""
    clock = SimpleNamespace(sleep=pause, strftime=time.strftime)
    monkeypatch.setattr("kava.commands.cluster.time", clock)


@pytest.mark.parametrize("state", ENDED)
def test_a_run_whose_job_has_ended_is_not_waited_for(
    state: str, submitted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused(seconds: float) -> None:
        raise AssertionError("it looks again")

    pausing(monkeypatch, paused)
    (submitted / "queue").write_text(f"41|0|{state}|0:07|None\n")
    assert run(main, ["monitor", "out", "--auto"]) == 0
    assert f"1 {state.lower()}" in capsys.readouterr().out
    assert run(main, ["cancel", "out"]) == 0
    assert "there is nothing to cancel" in capsys.readouterr().out
    assert not any("scancel" in line for line in calls(submitted))


@pytest.mark.parametrize("state", WAITING)
def test_a_run_whose_job_still_waits_is_waited_for_and_can_be_cancelled(
    state: str, submitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def paused(seconds: float) -> None:
        pauses.append(seconds)
        (submitted / "queue").write_text("41|0|FAILED|0:07|None\n")

    pausing(monkeypatch, paused)
    (submitted / "queue").write_text(f"41|0|{state}|0:07|None\n")
    assert run(main, ["cancel", "out"]) == 0
    assert calls(submitted)[-1] == "scancel 41"
    assert run(main, ["monitor", "out", "--auto", "--every", "7"]) == 0
    assert pauses == [7.0]


def test_a_scheduler_that_does_not_answer_is_asked_again_by_auto_alone(
    submitted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(submitted, monkeypatch, {"squeue": ONCE_SILENT})
    (submitted / "queue").write_text("41|0|FAILED|0:07|None\n")
    assert "Unable to contact slurm controller" in refusal(main, ["monitor", "out"], capsys)
    (submitted / "asked").rmdir()
    assert run(main, ["monitor", "out", "--auto", "--every", "0.1"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith(
        "squeue refused: slurm_load_jobs error: Unable to contact slurm controller; "
        "asked again in 0.1 s"
    )
    assert "small: job 41 of slurm" in second
