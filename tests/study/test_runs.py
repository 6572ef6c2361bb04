"""Studies from end to end: what they leave, keep, refuse and go on with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kava.cli import run
from kava.commands.study import main
from kava.jobs.crew import Failure
from kava.study.folder import lock_plan, read_locked_plan
from kava.study.packed import unpacked
from kava.study.plan_file import read_plan
from kava.study.run import StudyRun
from kava.study.runner import study_runs
from study.test_plan import GOOD, SHIPPED, changed, written


def study(folder: Path, values: dict[str, Any], *flags: str) -> int:
    """`kava study run` in this process, into a folder of its own."""
    plan = written(folder, values)
    argv = ["run", str(plan), "--jobs", "1", "--output_dir", str(folder / "out"), *flags]
    return run(main, argv)


def result(folder: Path, arm: str, seed: int) -> dict[str, Any]:
    path = folder / "out" / "runs" / arm / f"seed-{seed}" / "result.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_help_and_list_need_no_torch() -> None:
    program = (
        "import sys; from kava.commands.study import main\n"
        "main(['list'])\n"
        "try: main(['run', '--help'])\n"
        "finally: assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("flat_vs_structured", "qwen_reasoning_mix", "--dry_run", "--seeds", "--jobs"):
        assert word in done.stdout


def test_a_dry_run_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path, GOOD, "--dry_run") == 0
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert read_plan(GOOD).hash in said
    assert "6 runs" in said
    assert "alignment_mode=structured, wrong_sample=True" in said
    assert "to find +5.0 points with 2 seeds and 16 items" in said


def rows(path: Path, numbers: Iterable[int]) -> None:
    """Write a file of questions."""
    step = "Add one to it and write the sum down, which is all that has to be done here."
    lines = [
        {"question": f"What is {n} + 1?", "reasoning": f"{step}\n{step}", "answer": str(n + 1)}
        for n in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base__model_name": "kava/huge"}, "arms.flat: unknown built-in model 'kava/huge'"),
        ({"base__teacher_name": "./nowhere"}, "arms.flat: the folder './nowhere' does not exist"),
        ({"arms__structured__changes__map_rank": "99"}, "arms.structured: --map_rank 99 is too"),
        ({"data__train": "nowhere.jsonl"}, "dataset 'nowhere.jsonl' is neither a file nor a known"),
        ({"data__test": "nowhere.jsonl"}, "dataset 'nowhere.jsonl' is neither a file nor a known"),
        (
            {"data__train": {"gsm8k": 1, "nowhere.jsonl": 1}},
            "data.train: mix:nowhere.jsonl=1: 'nowhere.jsonl' is",
        ),
        ({"data__test_split": "dev"}, "split='dev' is not in kava/shell-game; choose train or"),
        ({"data__test_items": 17}, "test_items 17 is more than the 16 records"),
        ({"data__subset_size": 65}, "--subset_size 65 is more than the 64 training records"),
        ({"data__train": "train.jsonl", "data__test": "train.jsonl"}, "share 8 questions"),
        ({"data__train": "train.jsonl", "data__test": "late.jsonl"}, "share 1 questions"),
    ],
)
def test_what_no_run_could_read_is_refused_before_the_plan_is_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rows(tmp_path / "train.jsonl", range(24))
    rows(tmp_path / "late.jsonl", [*range(24, 47), 0])  # behind the items of the curves
    for flags in ([], ["--dry_run"]):
        assert study(tmp_path, changed(**changes), *flags) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"kava: error: {tmp_path / 'plan.yaml'}: ")
        assert words in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--arms", "flat", "structurd"], "--arms: 'structurd' is no arm of small (did you mean"),
        (["--seeds", "7"], "--seeds 7 is none of the plan's (0, 1)"),
    ],
)
def test_an_unknown_arm_or_seed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert study(tmp_path, GOOD, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kava study run: error: ")
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_study_or_with_an_edited_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no study: it has no plan\.lock\.json"):
        main(["status", str(tmp_path)])
    lock = tmp_path / "plan.lock.json"
    plan = read_plan(GOOD)
    whole = {"plan": plan.canonical(), "plan_hash": plan.hash}
    lock.write_text(json.dumps(whole))
    assert read_locked_plan(tmp_path) == plan
    whole["plan"]["primary"]["minimum_effect"] = 0.01
    lock.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="was edited after it was written"):
        main(["status", str(tmp_path)])
    lock.write_text(json.dumps(whole)[:-30])
    with pytest.raises(ValueError, match="is cut or damaged"):
        main(["status", str(tmp_path)])


def test_a_folder_with_another_plan_is_refused_by_what_differs(tmp_path: Path) -> None:
    lock_plan(tmp_path, read_plan(GOOD), "", "kava study run")
    lock_plan(tmp_path, read_plan(GOOD), "", "kava study run")
    other = read_plan(changed(budget__steps=5, arms__flat__changes__lr=1e-4))
    line = (
        f"{tmp_path} holds a study with another plan (budget.steps 4, now 5, arms.flat.changes.lr "
        f"None, now 0.0001): a plan is not changed after its first run; start anew"
    )
    with pytest.raises(ValueError, match=re.escape(line)):
        lock_plan(tmp_path, other, "", "kava study run", "start anew")


def test_a_finished_run_of_other_libraries_is_refused_and_kept(tmp_path: Path) -> None:
    plan = read_plan(GOOD)
    first, *_ = study_runs(plan, tmp_path)
    first.folder.mkdir(parents=True)
    first.finish({"accuracy": 0.5})
    assert first.finished() is not None
    other = replace(first, fingerprint={**first.fingerprint, "torch": "0.1"})
    with pytest.raises(ValueError, match=r"finished run with other settings.*torch .*now 0\.1"):
        other.finished()
    first.fail("it broke")
    assert first.finished() is None


@pytest.mark.parametrize("name", ["baselines", "flat_vs_structured"])
def test_a_study_of_an_earlier_version_goes_on(name: str) -> None:
    plan = read_locked_plan(SHIPPED / name)
    with unpacked(SHIPPED / name) as folder:
        runs = study_runs(plan, folder)
        then = [replace(run, fingerprint=written_result(run)["versions"]) for run in runs]
        assert all(run.finished() is not None for run in then), (
            "a field of TrainConfig that is new belongs into train.defaults.BEFORE or NOT_DECIDING"
        )
        other = replace(then[0], arm=replace(then[0].arm, changes={"fp16": True}))
        with pytest.raises(ValueError, match="this version of kava trains with other settings"):
            other.finished()


def written_result(run: StudyRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "result.json").read_text())
    return found


@pytest.mark.slow
def test_a_study_runs_from_end_to_end_and_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = {
        "what": "as it is", "role": "reference", "trained": False,
        "changes": {"student": "explicit", "kv_weight": 0.0},
    }  # fmt: skip
    values = changed(arms__raw=raw)
    assert study(tmp_path, values) == 0
    said = capsys.readouterr()
    assert "structured    1     finished  4" in said.out
    assert "unfair" not in said.err
    out = tmp_path / "out"
    lock = json.loads((out / "plan.lock.json").read_text())
    assert lock["plan_hash"] == read_plan(values).hash
    assert (out / "plan.yaml").read_text() == (tmp_path / "plan.yaml").read_text()
    budgets = [result(tmp_path, arm, 1)["budget"] for arm in GOOD["arms"]]
    assert budgets[0] == budgets[1] == budgets[2]
    assert budgets[0]["optimizer_steps"] == 4
    assert result(tmp_path, "flat", 0)["budget"]["data_order_hash"] != budgets[0]["data_order_hash"]
    assert not (out / "runs" / "raw" / "seed-1").exists()
    assert result(tmp_path, "raw", 0)["budget"]["tokens"] == 0
    found = result(tmp_path, "structured", 0)
    folder = out / "runs" / "structured" / "seed-0"
    for name, digest in found["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {*found["files"]} == {
        "metrics.jsonl", "items.jsonl", "alignment.json", "calibration.json",
    }  # fmt: skip
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert len(items) == found["num_items"] == 16
    assert sum(item["correct"] for item in items) == found["num_correct"]
    alignment = json.loads((folder / "alignment.json").read_text())
    assert len(alignment["layers"]) == 2
    assert len(alignment["heads"]["keys"][0]) == 4
    assert len(alignment["time"]["weights"]) == len(alignment["time"]["student"])
    assert None not in found["last"].values()

    before = (folder / "result.json").read_bytes()
    assert study(tmp_path, values) == 0
    assert (folder / "result.json").read_bytes() == before
    assert "from an earlier call" in capsys.readouterr().err

    assert study(tmp_path, changed(seeds=[0, 2])) == 1
    assert "a plan is not changed after its first run" in capsys.readouterr().err
    assert (folder / "result.json").read_bytes() == before

    found["budget"]["tokens"] *= 2
    (folder / "result.json").write_text(json.dumps(found))
    assert study(tmp_path, values) == 1
    said = capsys.readouterr()
    assert "unfair: structured, seed 0: tokens" in said.err
    assert "the arms had different budgets (1 difference" in said.err


@pytest.mark.slow
def test_a_failing_run_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the loss overflows, which a run stops at
    values = changed(arms__structured__changes={"alignment_mode": "structured", "lr": 1e30})
    assert study(tmp_path, values, "--seeds", "0") == 1
    said = capsys.readouterr().err
    assert "1 of the runs failed (structured, seed 0)" in said
    failed = result(tmp_path, "structured", 0)
    assert failed["finished"] is False
    assert "structured, seed 0 failed: " in failed["reason"]
    assert result(tmp_path, "wrong_sample", 0)["finished"] is True
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "structured    0     failed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_study_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    values = changed(budget__steps=40, base__save_steps=2, base__logging_steps=1)
    plan, out = written(tmp_path, values), tmp_path / "out"
    argv = [
        sys.executable, "-m", "kava.cli", "study", "run", str(plan), "--jobs", "1", "--arms",
        "flat", "--seeds", "0", "--output_dir", str(out),
    ]  # fmt: skip
    folder = out / "runs" / "flat" / "seed-0"
    process = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoint-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = json.loads((folder / "result.json").read_text())
    whole = tmp_path / "whole"
    argv[-1] = str(whole)
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    expected = json.loads((whole / "runs" / "flat" / "seed-0" / "result.json").read_text())
    assert resumed["budget"] == expected["budget"]
    assert resumed["health"] == pytest.approx(expected["health"])
    first = (folder / "items.jsonl").read_bytes()
    assert first == (whole / "runs" / "flat" / "seed-0" / "items.jsonl").read_bytes()


def test_a_full_disk_ends_a_study_at_its_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [Failure("flat, seed 0 failed: it broke"), Failure("the disk is full", True)]
    asked = []

    class NoCrew:
        def __init__(self, *args: object, **options: object) -> None: ...

        def do(self, jobs: list[StudyRun]) -> Iterator[tuple[StudyRun, Failure]]:
            for job, failure in zip(jobs, failures * 3):
                asked.append(job.name)
                yield job, failure

        def end(self) -> None: ...

    monkeypatch.setattr("kava.study.runner.Crew", NoCrew)
    assert study(tmp_path, GOOD) == 1
    assert asked == ["flat, seed 0", "structured, seed 0"]
    *_, line = capsys.readouterr().err.splitlines()
    assert line == (
        "kava: error: the disk is full; the other runs would fail alike and are left: once the "
        "disk takes more, the same command goes on"
    )
    assert result(tmp_path, "structured", 0)["reason"] == "the disk is full"
