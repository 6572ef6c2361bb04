"""Damaged records, wrong folders and wrong flags of `kava cluster`: one line, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.test_submit import calls, submit
from kava.cluster.local import Local
from kava.cluster.record import read_record
from kava.cluster.schedulers import Submission
from kava.commands.cluster import main
from one_line import refusal
from study.test_plan import GOOD, written

RECORDS: dict[str, tuple[Any, str]] = {
    "without submissions": ({}, "it lacks 'submissions'"),
    "another engine": ({"engine": "lsf"}, "there is no engine 'lsf'"),
    "an id that is no process": ({"runs": "abc"}, "runs 'abc' is no id of local"),
    "an id that is a number": ({"runs": 5}, "runs 5 is no id of local"),
    "half a task": ({"tasks": [["flat"]]}, "not enough values"),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_damaged_record_is_named(what: str, tmp_path: Path) -> None:
    changes, message = RECORDS[what]
    one = Submission("local", "7", "", (("flat", 0),), "today", 60)._asdict()
    path = tmp_path / "cluster/jobs.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"submissions": [{**one, **changes}]} if changes else {}))
    with pytest.raises(ValueError, match=rf"jobs.json is cut or damaged \({message}.*remove it"):
        read_record(tmp_path)


def test_processes_that_have_ended_do_not_count_where_nobody_waits_for_them(
    tmp_path: Path,
) -> None:
    script = tmp_path / "cluster/runs.sh"
    command = ["bash", "-c", f"true {script}; read line"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    one = Submission("local", str(process.pid), "", (("flat", 0),), "today", 60)
    deadline = time.monotonic() + 10  # its command line is there a moment after it has started
    while not Local().jobs(one, tmp_path)[0].is_active:
        assert time.monotonic() < deadline
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
    assert not Local().jobs(one, tmp_path)[0].is_active
    process.wait()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--venv", "nowhere"], "--venv nowhere has no bin/activate"),
        (["--time", "999999:00:00"], "--time 999999:00:00 is more than a year"),
    ],
)
def test_what_no_job_could_do_is_refused_before_it_is_submitted(
    flags: list[str],
    words: str,
    tmp_path: Path,
    slurm: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert words in refusal(main, submit(tmp_path, *flags), capsys)
    assert calls(slurm) == []
    assert not (tmp_path / "out").exists()


def test_the_check_refuses_folders_that_are_files(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(written(tmp_path, GOOD))
    assert "--store nowhere is no folder" in refusal(
        main, ["check", plan, "--store", "nowhere"], capsys
    )
    assert "is a file; name a folder" in refusal(
        main, ["check", plan, "--output_dir", plan], capsys
    )
    assert not (tmp_path / "pre_deployment_check_report.txt").exists()
