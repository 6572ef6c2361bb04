"""Plans of a curriculum: what is read, what is refused, and the shipped one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curriculum.small import FAMILIES, GPT2, LLAMA, SMALL, changed, curriculum, written
from kava.cli import run
from kava.commands.curriculum import main
from kava.curriculum.checks import check_chains
from kava.curriculum.folder import lock_curriculum, read_lock
from kava.curriculum.plan import PHASES, phase_named
from kava.curriculum.plan_file import load_curriculum, read_curriculum, shipped_curricula
from kava.curriculum.studies import comparison_of
from kava.data.records import Record


def test_help_and_list_need_no_torch() -> None:
    program = (
        "import sys; from kava.commands.curriculum import main\n"
        "main(['list'])\n"
        "try: main(['run', '--help'])\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("shell", "--until", "--dry_run", "--output_dir"):
        assert word in done.stdout


def test_the_runs_of_a_plan() -> None:
    plan = read_curriculum(SMALL)
    stages = {stage.slug: stage for stage in plan.stages()}
    assert list(stages) == [
        "1-dual_prompt", "2-samples", "3-checkpoints", "4-routing-fixed", "4-routing-similarity",
        "4-routing-learnable", "5-shared_space",
    ]  # fmt: skip
    assert [stage.slug for stage in plan.stages("samples")] == list(stages)[:2]
    assert stages["2-samples"].budget.steps == 3
    assert stages["2-samples"].data.test == "kava/shell-game?num_test=40&form=each"
    assert stages["3-checkpoints"].data == plan.data
    # several teachers take the place of the base's one
    assert stages["2-samples"].settings["teacher_name"] == LLAMA
    assert stages["4-routing-learnable"].settings["teacher_name"] is None
    assert stages["4-routing-learnable"].settings["fusion"] == "learnable"
    assert read_curriculum(json.loads(json.dumps(plan.canonical()))) == plan
    assert read_curriculum(changed(seed=1)).hash != plan.hash


@pytest.mark.parametrize("word", [*PHASES, "1", "4"])
def test_a_phase_has_a_number_and_a_name(word: str) -> None:
    assert phase_named(word) == (word if word in PHASES else PHASES[int(word) - 1])


TURNED = {"phases": {"routing": SMALL["phases"]["routing"], "samples": SMALL["phases"]["samples"]}}
REFUSED = [
    ({"phases": {}}, "phases must name one or more of dual_prompt, samples, checkpoints"),
    ({"phases__sample": {"what": "x"}}, "'sample' is no phase (did you mean 'samples'?)"),
    (TURNED, "samples is phase 2 and stands behind routing, phase 4: write them in their order"),
    ({"colour": 1}, "the plan: unknown key 'colour'"),
    ({"question": None}, "the plan: the key 'question' is missing"),
    ({"seed": -1}, "seed -1 must be from 0 to"),
    ({"name": "a/b"}, "must be usable as the name of a folder"),
    ({"phases__samples__step": 3}, "phases.samples: unknown key 'step' (did you mean 'steps'?)"),
    ({"phases__samples__steps": 0}, "phases.samples: steps 0 must be at least 1"),
    ({"phases__samples__data__tran": "x"}, "phases.samples: data: unknown key 'tran'"),
    ({"phases__samples__stages": {"a": {}}}, "stages are of routing; this phase is one run"),
    ({"phases__samples__changes": {"start_from": "x"}}, "start_from is set by the curriculum"),
    ({"phases__samples__changes": {"kv_wieght": 1}}, "unknown key 'kv_wieght' (did you mean"),
    ({"phases__samples__changes": {"kv_method": "best"}}, "phases.samples: arms.before: --kv_met"),
    ({"base__teachers": [f"a={GPT2}", f"b={LLAMA}"]}, "each name teachers: leave one out"),
    ({"phases__dual_prompt__changes": {}}, "phases.dual_prompt: teacher_prompts must give one"),
    ({"phases__dual_prompt__changes__teacher_prompts": ["{question}"] * 2}, "two prompts, such as"),
    ({"phases__dual_prompt__changes__teachers": [f"a={LLAMA}", f"b={GPT2}"]},
     "teachers must name one model twice"),
    ({"phases__checkpoints__changes__teachers": [f"a={LLAMA}", f"b={LLAMA}"]},
     "phases.checkpoints: teachers must name two models or more"),
    ({"phases__routing__changes__teachers": [LLAMA]}, "phases.routing: teachers must name two"),
    ({"phases__routing__stages": {"fixed": {"fusion": "fixed"}}},
     "its last stage must weigh teachers by the sample, and fusion fixed does not"),
    ({"phases__routing__stages": {"a": {"fusion": "similarity"}, "b": {"fusion": "fixed"}}},
     "fusion fixed does not"),
    ({"phases__routing__stages": {"a": 1}}, "stages.a must hold settings of kava train"),
    ({"phases__routing__stages__fixed__fusion": "average"}, "--fusion 'average' is unknown"),
    ({"phases__shared_space__changes__shared_space_weight": 0.0},
     "phases.shared_space: shared_space_weight must be above 0"),
    ({"base__seed": 1}, "base: seed is set by seeds"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_is_no_curriculum_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert curriculum(tmp_path, changed(**changes), "--dry_run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kava: error: {tmp_path / 'curriculum.yaml'}: ")
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base__model_name": "kava/huge"}, "1 dual_prompt: arms.dual_prompt: unknown built-in"),
        ({"phases__routing__changes__teachers": ["a=./no", f"b={GPT2}"]},
         "4 routing: fixed: the folder './no' does not exist"),
        ({"data__train": "nowhere.jsonl"}, "1 dual_prompt: dataset 'nowhere.jsonl' is neither"),
        ({"phases__samples__data__test": "kava/shell-game?num_test=40"},
         "2 samples: none of the 8 held-out questions has two chains of thought"),
        ({"phases__samples__data__train": "kava/shell-game?num_train=40&form=both"},
         "2 samples: none of the 40 training questions has two chains of thought"),
        ({"phases__samples__data__train": "kava/shell-game?num_train=30&form=each"},
         "2 samples: 30 training samples are too few to report a gap: give 32 or more"),
        ({"phases__samples__data__curve_items": 6}, "6 held-out samples are too few"),
    ],
)  # fmt: skip
def test_what_no_stage_could_read_is_refused_before_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert curriculum(tmp_path, changed(**changes)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kava: error: {tmp_path / 'curriculum.yaml'}: ")
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "shel"], "shel is neither a file nor a shipped curriculum (did you mean 'shell'"),
        (["run", "shell", "--until", "6"], "'6' is no phase; choose 1 dual_prompt, 2 samples"),
        (["plan", "shell", "--phase", "route"], "'route' is no phase"),
        (["plan", "shell"], "--phase is missing"),
        (["status", "."], "holds no curriculum: it has no curriculum.lock.json"),
        (["ran"], "there is no part 'ran' (did you mean 'run'?)"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(main, argv) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_phase_that_a_plan_leaves_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = changed(phases={"checkpoints": {"what": "two", "changes": FAMILIES}})
    assert curriculum(tmp_path, values, "--until", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "small has no phase dual_prompt: it has checkpoints" in line


def test_a_lock_that_was_edited_is_named(tmp_path: Path) -> None:
    lock_curriculum(tmp_path, read_curriculum(SMALL), "", "kava curriculum run")
    assert read_curriculum(read_lock(tmp_path)["plan"]) == read_curriculum(SMALL)
    path = tmp_path / "curriculum.lock.json"
    path.write_text(path.read_text().replace('"steps": 3', '"steps": 4'))
    with pytest.raises(ValueError, match="was edited after it was written"):
        main(["status", str(tmp_path)])
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match="is cut or damaged"):
        main(["status", str(tmp_path)])


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert curriculum(tmp_path, SMALL, "--dry_run", "--until", "3") == 0
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert read_curriculum(SMALL).hash in said
    assert "3 runs, one after the other" in said
    assert re.search(r"^3 checkpoints +2 +two families +.*fusion=similarity", said, re.M)


def test_a_phase_is_compared_with_going_on_as_before() -> None:
    plan = read_curriculum(SMALL)
    study = comparison_of(plan, plan.phase("routing"), start=Path("x"), seeds=[4, 5])
    roles = {arm.name: arm.role for arm in study.arms}
    assert roles == {
        "before": "baseline", "routing-fixed": "treatment", "routing-similarity": "treatment",
        "routing-learnable": "treatment", "wrong_sample": "control", "start": "reference",
    }  # fmt: skip
    assert study.base["start_from"] == "x"
    assert study.seeds == (4, 5)
    before = study.arm("before").changes
    assert before == {**FAMILIES, "teacher_name": None, "fusion": "similarity"}
    first = comparison_of(plan, plan.phase("dual_prompt"))
    assert first.arm("before").changes == {}
    assert "start_from" not in first.base
    values = changed()
    values["phases"] = {"samples": {"what": "chains", "data": SMALL["phases"]["samples"]["data"]}}
    alone = read_curriculum(values)
    with pytest.raises(ValueError, match="differs from the one before it in its data alone"):
        comparison_of(alone, alone.phase("samples"))


@pytest.mark.parametrize("name", shipped_curricula())
def test_the_shipped_ones_are_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = load_curriculum(name)
    assert plan.name == name
    for phase in plan.phases:
        assert run(main, ["plan", name, "--phase", str(phase.number), "--folder", "no"]) == 0
    assert run(main, ["list"]) == 0
    assert plan.question in capsys.readouterr().out


def test_questions_with_several_chains_are_counted() -> None:
    def records(counts: list[int]) -> list[Record]:
        return [
            Record(id=f"{q}-{n}", question=f"{q}?", reasoning=f"way {n}", answer="1")
            for q, count in enumerate(counts)
            for n in range(count)
        ]

    assert check_chains(records([3, 1] * 10), records([2] * 4)) == (1, 3)
    with pytest.raises(ValueError, match="none of the 40 training questions"):
        check_chains(records([1] * 40), records([2] * 4))


def test_the_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "phase3.yaml"
    plan = str(written(tmp_path, SMALL))
    assert run(main, ["plan", plan, "--phase", "3", "--output", str(output)]) == 0
    assert "2 samples is not finished in outputs/curriculum/small" in output.read_text()
    assert f"kava study run {output} --dry_run" in capsys.readouterr().out
