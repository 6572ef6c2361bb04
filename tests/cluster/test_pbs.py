"""What is made of what qstat says: its jobs, its failures, and the report that waits for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cluster import fakes
from cluster.test_submit import calls
from kava.cli import run
from kava.cluster.pbs import Pbs
from kava.cluster.schedulers import Submission
from kava.commands.cluster import main
from kava.machine.programs import Unreachable
from one_line import refusal
from study.test_plan import GOOD, written

HEAD = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
"""
DOWN = 'echo "qstat: cannot connect to server srv (errno=15010)" >&2; exit 2'
PROGRAMS = {
    "qsub": 'echo "qsub $*" >> "$FAKE/calls"; echo "$(wc -l < "$FAKE/calls")0[].srv"',
    "qstat": f'[ "$1" = -Q ] && exit; [ -f "$FAKE/down" ] && {{ {DOWN}; }}; cat "$FAKE/queue"',
    "qdel": 'echo "qdel $*" >> "$FAKE/calls"',
}
ONE = Submission("pbs", "12[].srv", "13.srv", (("flat", 0), ("wrong", 0)), "today", 60)


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PBS whose qstat prints the file `queue`, and fails where there is a file `down`."""
    monkeypatch.chdir(tmp_path)
    place = fakes.install(tmp_path / "fake", monkeypatch, PROGRAMS)
    (place / "queue").touch()
    return place


def test_a_qstat_that_fails_is_not_an_empty_queue(
    tmp_path: Path, pbs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["submit", str(written(tmp_path, GOOD)), "--output_dir", "out", "--engine", "pbs"]
    assert run(main, argv) == 0
    again = tmp_path / "out/cluster/resubmitted"
    again.write_text("0 77.srv\n")
    submitted = calls(pbs)
    (pbs / "down").touch()
    capsys.readouterr()
    for command in (argv, ["cancel", "out"], ["status", "out"], ["monitor", "out"]):
        assert "qstat refused: qstat: cannot connect" in refusal(main, command, capsys)
    assert calls(pbs) == submitted
    assert again.read_text() == "0 77.srv\n"
    (pbs / "down").unlink()
    assert run(main, ["cancel", "out"]) == 0
    assert "there is nothing to cancel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("qstat", "is_empty"),
    [
        ("[ $# -gt 0 ] && exit 2; exit 0", True),
        ("[ $# -gt 0 ] && exit 2; exit 153", True),  # of Slurm, which has no job and no -t
        ("exit 2", False),
        ("echo 'qstat: Unauthorized Request' >&2; exit 153", False),
    ],
)
def test_a_queue_is_empty_where_qstat_says_so(
    qstat: str, is_empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(tmp_path, monkeypatch, {"qstat": qstat})
    if is_empty:
        assert Pbs().jobs(ONE, tmp_path) == {}
    else:
        with pytest.raises(Unreachable, match="qstat refused"):
            Pbs().jobs(ONE, tmp_path)


@pytest.mark.parametrize(
    ("qstat", "waits"),
    [
        (f"cat <<'END'\n{HEAD}77.srv  a_study  me  00:00:01 R workq\nEND", True),
        (f"cat <<'END'\n{HEAD}77.srv  a_study  me  00:00:01 C workq\nEND", False),
        (f"echo note >&2; cat <<'END'\n{HEAD}77.srv  a_study  me  0 Q workq\nEND", True),
        ("echo 'qstat: Unknown Job Id 77.srv' >&2; exit 153", False),
        ("echo 'qstat: 77.srv Job has finished, use -x or -H' >&2; exit 35", False),
        ("exit 153", False),
        (DOWN, True),
        ("exit 1", True),
    ],
)
def test_the_report_waits_for_jobs_that_are_not_known_to_have_ended(
    qstat: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fakes.install(tmp_path, monkeypatch, {**PROGRAMS, "qstat": qstat})
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/resubmitted").write_text("0 77.srv\n")
    lines = ["set -u", f'study="{tmp_path}"', *Pbs().before_report(tmp_path), "echo written"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = f"qsub -W depend=afterany:77.srv {tmp_path}/cluster/report.pbs"
    assert calls(fake) == ([report] if waits else [])
    assert ("written" in done.stdout) != waits


def test_tasks_of_an_array_have_a_state_of_their_own(tmp_path: Path, pbs: Path) -> None:
    def line(name: str, state: str) -> str:
        return f"{name}  a_study  me  00:00:01 {state} workq\n"

    tasks = tuple(("flat", seed) for seed in range(4))
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/resubmitted").write_text("1 77.srv\n")
    names = [("77.srv", "Q"), ("12[].srv", "B"), ("12[0].srv", "X"), ("12[1].srv", "X")]
    lines = [line(*one) for one in [*names, ("12[2].srv", "Q"), ("13.srv", "H")]]
    for order in (lines, lines[::-1]):
        (pbs / "queue").write_text(HEAD + "".join(order))
        jobs = Pbs().jobs(ONE._replace(tasks=tasks), tmp_path)
        assert {key: (job.id, job.state) for key, job in jobs.items()} == {
            0: ("12[0].srv", "completed"),
            1: ("77.srv", "pending"),
            2: ("12[2].srv", "pending"),
            3: ("12[].srv", "running"),  # not listed: as its array
            "report": ("13.srv", "pending"),
        }
