"""A curriculum from end to end: what each phase does, and what a run that was cut goes on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from curriculum.small import SMALL, changed, curriculum, here, written
from kava.cli import run
from kava.commands.curriculum import main
from kava.student.checkpoint import find_student
from kava.student.whole import ALIGNER_FILE, WEIGHTS_FILE
from kava.study.folder import metric_lines, read_result

STAGES = (
    "1-dual_prompt", "2-samples", "3-checkpoints",
    "4-routing-fixed", "4-routing-similarity", "4-routing-learnable", "5-shared_space",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        here(patch)
        assert curriculum(folder, SMALL) == 0
    return folder / "out"


def student(folder: Path, stage: str) -> Path:
    return folder / "phases" / stage / "runs" / stage[2:] / "seed-0"


def last(folder: Path, stage: str) -> dict[str, Any]:
    return [row for row in metric_lines(student(folder, stage)) if "eval_ce" in row][-1]


def summary(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "summary.json").read_text())
    return found


def test_every_stage_starts_from_the_student_of_the_last(whole: Path) -> None:
    results = [read_result(student(whole, stage)) for stage in STAGES]
    assert all(result is not None and result["finished"] for result in results)
    for earlier, later in pairwise(STAGES):
        result = read_result(student(whole, later))
        before = read_result(student(whole, later).parent.parent / "before" / "seed-0")
        theirs = read_result(student(whole, earlier))
        assert result is not None
        assert before is not None
        assert theirs is not None
        # the weights that it started from are the last ones of the stage before
        assert result["versions"]["start_weights"] == before["versions"]["start_weights"]
        if earlier != "1-dual_prompt" and later != "3-checkpoints":  # one test for both
            assert before["num_correct"] == theirs["num_correct"]
    for number, stage in enumerate(STAGES):
        rows = [row for row in metric_lines(student(whole, stage)) if "eval_ce" in row]
        assert rows[0]["step"] == 0
        assert rows[-1]["step"] == summary(whole)[number]["steps"]


def test_the_summary_says_what_each_stage_added(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = summary(whole)
    assert [row["label"] for row in rows] == [
        "1 dual_prompt", "2 samples", "3 checkpoints",
        "4 routing: fixed", "4 routing: similarity", "4 routing: learnable", "5 shared_space",
    ]  # fmt: skip
    for row, stage in zip(rows, STAGES):
        end = last(whole, stage)
        assert row["kv_wrong_sample"] == end["eval_kv_wrong_sample"]
        assert row["num_items"] == 8
        assert row["kv"][1] == end["eval_kv"]
        assert row["kv"][0] != row["kv"][1]
    assert run(main, ["status", str(whole)]) == 0
    said = capsys.readouterr().out
    assert said.count("finished") == len(STAGES)
    assert f"{rows[0]['kv'][1]:.4g}" in said


def test_dual_prompt_reads_with_both_prompts(whole: Path) -> None:
    end = last(whole, "1-dual_prompt")
    assert end["eval_route_plain"] == pytest.approx(0.7, abs=1e-6)
    assert end["eval_route_steps"] == pytest.approx(0.3, abs=1e-6)
    # the two readings of one text are not the same
    assert end["eval_teachers_cos_layer_1"] < 0.9999


def test_samples_report_the_gap(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gap, end = summary(whole)[1]["gap"], last(whole, "2-samples")
    assert gap.keys() == {"kv", "ce"}
    for name, numbers in gap.items():
        assert numbers["train"] == end[f"eval_train_{name}"]
        assert numbers["held_out"] == end[f"eval_{name}"]
        assert numbers["train"] > 0
    assert all(not row["gap"] for row in summary(whole)[2:])
    run(main, ["status", str(whole)])
    assert "2 samples: on training and on held-out samples KV " in capsys.readouterr().out
    # a question of the test with two chains is asked once
    items = (student(whole, "2-samples") / "items.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"].rsplit("-", 1)[0] for line in items]
    assert len(ids) == len({*ids}) == 8


def test_checkpoints_have_a_map_each(whole: Path) -> None:
    folder = student(whole, "3-checkpoints")
    llama, gpt2 = (
        json.loads((folder / f"calibration-{one}.json").read_text()) for one in ("llama", "gpt2")
    )
    assert llama != gpt2
    end = last(whole, "3-checkpoints")
    assert end["eval_route_llama"] + end["eval_route_gpt2"] == pytest.approx(1, abs=1e-5)
    assert end["eval_route_llama"] != pytest.approx(0.5, abs=1e-4)


def test_routing_goes_from_given_weights_to_a_router(whole: Path) -> None:
    fixed, similar, learned = (last(whole, stage) for stage in STAGES[3:6])
    assert fixed["eval_route_llama"] == pytest.approx(0.5, abs=1e-6)
    assert "eval_route_llama_layer_1" in similar
    assert "eval_route_likelihood" in learned
    beside = [load_file(find_student(student(whole, one)) / ALIGNER_FILE) for one in STAGES[3:6]]
    has = [any(name.startswith("router.") for name in part) for part in beside]
    assert has == [False, False, True]


def test_shared_space_compares_points_of_gpt_bert_and_t5(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end, row = last(whole, "5-shared_space"), summary(whole)[-1]
    assert row["space"][1:] == [
        end["eval_shared_space_own"], end["eval_shared_space_wrong_sample"],
    ]  # fmt: skip
    assert end["eval_shared_space_spread_teacher"] > 0.1
    assert {f"eval_route_{one}" for one in ("gpt2", "bert", "t5")} <= end.keys()
    beside = load_file(find_student(student(whole, "5-shared_space")) / ALIGNER_FILE)
    assert sum(name.endswith("hidden.weight") for name in beside) == 4  # three teachers' and one
    run(main, ["status", str(whole)])
    assert "5 shared_space: in the shared space points were " in capsys.readouterr().out


class Cut(TrainerCallback):
    """End a run in its second step, as a kill does: the step is lost."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            raise RuntimeError("cut")


def test_a_curriculum_that_was_cut_inside_a_phase_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch)
    assert curriculum(tmp_path, SMALL, "--until", "1") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kava.study.run.make_watch", lambda connection: Cut())
        with pytest.raises(RuntimeError, match="cut"):
            curriculum(tmp_path, SMALL, "--until", "samples")
    out, stage = tmp_path / "out", "2-samples"
    assert [path.name for path in student(out, stage).glob("checkpoint-*")] == ["checkpoint-1"]
    capsys.readouterr()
    assert run(main, ["status", str(out)]) == 0
    assert "cut" in capsys.readouterr().out
    assert curriculum(tmp_path, SMALL, "--until", "2") == 0
    assert "from an earlier call" in capsys.readouterr().err
    assert (student(out, stage) / "log.txt").read_text() == "begun\nresumed\n"
    ours, theirs = (
        load_file(find_student(student(one, stage)) / WEIGHTS_FILE) for one in (out, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # the first phase is kept as it was, and a plan is not changed
    (line,) = refused(tmp_path, changed(budget__steps=3), capsys)
    assert "holds a curriculum with another plan (budget.steps 2, now 3)" in line
    assert "a plan is not changed after its first run; take another --output_dir" in line


def refused(
    folder: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str], *flags: str
) -> list[str]:
    capsys.readouterr()
    assert curriculum(folder, values, *flags) in (1, 2)
    return [x for x in capsys.readouterr().err.splitlines() if x.startswith("kava")]


def test_another_student_of_an_earlier_phase_is_not_mixed_in(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch)
    assert curriculum(tmp_path, SMALL, "--until", "2") == 0
    path = find_student(student(tmp_path / "out", "1-dual_prompt")) / WEIGHTS_FILE
    path.write_bytes((find_student(student(whole, "3-checkpoints")) / WEIGHTS_FILE).read_bytes())
    (line,) = refused(tmp_path, SMALL, capsys)
    assert "holds a finished run with other settings (start_weights" in line


def test_a_phase_is_the_plan_of_a_study(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kava.commands.study import main as study

    plan = str(written(tmp_path, SMALL))
    for phase in ("1", "samples", "3", "routing", "5"):
        output = str(tmp_path / "study.yaml")
        argv = ["plan", plan, "--phase", phase, "--folder", str(whole), "--output", output]
        assert run(main, argv) == 0
        assert run(study, ["run", output, "--dry_run", "--seeds", "0"]) == 0
        said = capsys.readouterr().out
        assert "before" in said
        assert "wrong_sample=True" in said
        earlier = f"start_from: {find_student(student(whole, STAGES[0]))}"
        assert (earlier in Path(output).read_text()) == (phase == "samples")


@pytest.mark.slow
def test_a_killed_process_goes_on_inside_its_phase(whole: Path, tmp_path: Path) -> None:
    """The command itself, with processes of its own: stopped in a phase, and called again."""
    plan = written(tmp_path, changed(phases__samples__steps=80, base__save_steps=10))
    argv = [sys.executable, "-m", "kava", "curriculum", "run", str(plan), "--until", "samples"]
    argv += ["--output_dir", str(tmp_path / "out")]
    folder = student(tmp_path / "out", "2-samples")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("checkpoint-1*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "2 samples was at work; the same command goes on" in said.splitlines()[-1]
    assert not (folder / "result.json").exists()
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dual_prompt, seed 0: 0.0 % of 8 answers right" in done.stderr
    result = read_result(folder)
    assert result is not None
    assert result["budget"]["optimizer_steps"] == 80
    assert (folder / "log.txt").read_text().count("Evaluation at step 0:") == 1
    table = done.stdout.splitlines()
    assert any(line.startswith("2 samples ") and " 80 " in line for line in table)
