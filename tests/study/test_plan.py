"""Plans: what is read, what is refused, and the ones that are shipped."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kava.statistics import TESTS as STATISTICAL_TESTS
from kava.study.plan import TESTS, Plan
from kava.study.plan_file import load_plan, read_plan, shipped_plans
from kava.study.settings import train_config
from kava.study.tables import plan_table

SHIPPED = Path(__file__).parents[2] / "docs/results"

GOOD: dict[str, Any] = {
    "name": "small",
    "question": "Does it run?",
    "base": {
        "model_name": "kava/shell-llama", "teacher_name": "kava/shell-gpt2", "target_len": 3,
        "kv_method": "full", "kv_layer_std": True, "max_length": 64, "max_new_tokens": 3,
        "lr": "1e-3", "calibration_samples": 64, "device": "cpu", "token_alignment": "soft",
    },
    "data": {
        "train": "kava/shell-game?num_train=64", "test": "kava/shell-game?num_test=24",
        "curve_items": 8, "test_items": 16,
    },
    "budget": {"steps": 4, "batch_size": 8},
    "seeds": [0, 1],
    "arms": {
        "flat": {"what": "flat map", "role": "baseline", "changes": {"alignment_mode": "flat"}},
        "structured": {
            "what": "head map", "role": "treatment", "changes": {"alignment_mode": "structured"},
        },
        "wrong_sample": {
            "what": "other cache", "role": "control",
            "changes": {"alignment_mode": "structured", "wrong_sample": True},
        },
    },
    "primary": {"metric": "accuracy", "minimum_effect": 0.05, "test": "crossed", "alpha": 0.05},
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    """The good plan, with values at dotted places, written with __; None takes a key out."""
    values = copy.deepcopy(GOOD)
    for place, value in changes.items():
        *levels, key = place.split("__")
        at = values
        for level in levels:
            at = at[level]
        if value is None:
            del at[key]
        else:
            at[key] = value
    return values


def written(folder: Path, values: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_plan_is_read_with_its_defaults(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, GOOD))
    assert plan.baseline.name == "flat"
    assert [arm.name for arm in plan.compared] == ["structured", "wrong_sample"]
    assert (plan.data.train_split, plan.data.test_split, plan.budget.epochs) == (
        "train", "test", None,
    )  # fmt: skip
    config = train_config(plan, plan.arm("structured"), 1, tmp_path)
    assert (config.lr, config.max_steps, config.batch_size, config.seed) == (1e-3, 4, 8, 1)
    assert (config.eval_size, config.alignment_mode, config.output_dir) == (
        8, "structured", str(tmp_path),
    )  # fmt: skip


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    plan = read_plan(GOOD)
    turned = dict(reversed(list(GOOD.items())))
    assert read_plan(turned).hash == plan.hash
    assert read_plan(json.loads(json.dumps(plan.canonical()))).hash == plan.hash
    assert read_plan(changed(primary__minimum_effect=0.04)).hash != plan.hash
    assert read_plan(changed(arms__flat__changes__lr=1e-4)).hash != plan.hash


def test_a_mix_is_handed_on() -> None:
    mix = {"gsm8k": 0.4, "arc": 0.6}
    assert read_plan(changed(data__train=mix)).data.train == "mix:gsm8k=0.4,arc=0.6"
    assert read_plan(changed(data__train="mix:a=1,b=2")).data.train == "mix:a=1,b=2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [0]}, "the plan: unknown key 'sedes' (did you mean 'seeds'?)"),
        ({"data__trian": "x"}, "data: unknown key 'trian' (did you mean 'train'?)"),
        ({"budget__step": 3}, "budget: unknown key 'step' (did you mean 'steps'?)"),
        ({"primary__alhpa": 0.1}, "primary: unknown key 'alhpa' (did you mean 'alpha'?)"),
        ({"arms__flat__rule": "x"}, "arms.flat: unknown key 'rule' (did you mean 'role'?)"),
        (
            {"arms__flat__changes": {"kv_wieght": 1.0}},
            "arms.flat: unknown key 'kv_wieght' (did you mean 'kv_weight'?)",
        ),
        ({"base__target_length": 3}, "base: unknown key 'target_length'"),
        ({"question": None}, "the plan: the key 'question' is missing"),
        ({"name": "a/b"}, "name 'a/b' must be usable as the name of a folder"),
        ({"seeds": [0, 1, 1]}, "seeds: 1 stands there 2 times"),
        ({"seeds": [0]}, "seeds: the test 'crossed' needs at least 2 seeds, the plan has 1"),
        ({"seeds": ["a", 1]}, "seeds: 'a' must be a whole number"),
        ({"seeds": 3}, "seeds: 3 must be a list"),
        ({"arms__flat__role": "treatment"}, "exactly one must have the role baseline (there is"),
        ({"arms__structured__role": "baseline"}, "exactly one must have the role baseline (flat,"),
        ({"arms__flat__role": "other"}, "arms.flat: role 'other' is unknown; choose baseline"),
        ({"arms__wrong_sample": None}, "a control with `wrong_sample: true`"),
        ({"arms__wrong_sample__changes__wrong_sample": False}, "a control with `wrong_sample"),
        (
            {"arms__flat__changes__dataset_name": "x"},
            "arms.flat: an arm may not change the data; dataset_name is the same for all",
        ),
        ({"arms__flat__changes__seed": 3}, "arms.flat: an arm may not change the data; seed"),
        ({"arms__flat__changes__eval_split": "x"}, "arms.flat: an arm may not change the data"),
        ({"arms__flat__changes__subset_size": 9}, "arms.flat: an arm may not change the data"),
        ({"arms__flat__changes__batch_size": 4}, "arms.flat: an arm may not change the data that"),
        ({"arms__flat__changes__max_steps": 9}, "and so not max_steps; only a reference may"),
        ({"arms__flat__changes__output_dir": "x"}, "arms.flat: output_dir is set by the study"),
        ({"base__max_steps": 9}, "base: max_steps is set by budget.steps; name it there"),
        ({"base__seed": 9}, "base: seed is set by seeds"),
        ({"base__lr": "fast"}, "base: lr: 'fast' is not a number"),
        ({"arms__flat__changes": {"kv_loss": "l3"}}, "arms.flat: --kv_loss 'l3' is unknown"),
        ({"arms__flat__trained": False}, "arms.flat: only a reference may be `trained: false`"),
        ({"budget__steps": None}, "budget: give steps or epochs, one of the two"),
        ({"budget__steps": 0}, "budget: steps 0 must be at least 1"),
        ({"budget__steps": "many"}, "budget: steps 'many' is not a whole number"),
        ({"primary__metric": "loss"}, "primary: metric 'loss' is unknown; choose accuracy"),
        ({"primary__test": "magic"}, "primary: test 'magic' is unknown; choose crossed"),
        ({"primary__minimum_effect": 5}, "primary: minimum_effect 5 must be above 0 and below 1"),
        ({"data__curve_items": 0}, "data: curve_items 0 must be at least 1"),
        (
            {"arms__FLAT": {"what": "flat again", "role": "treatment"}},
            "arms.FLAT and arms.flat would share a folder where case does not count; rename one",
        ),
        ({"arms__flat__seeds": 1}, "arms.flat: the test 'crossed' needs at least 2 seeds"),
        ({"arms__flat__seeds": 3}, "arms.flat: seeds 3 must be from 1 to the plan's 2"),
        ({"arms__flat__seeds": 0}, "arms.flat: seeds 0 must be from 1 to the plan's 2"),
        (
            {
                "arms__again": {
                    "what": "x",
                    "role": "treatment",
                    "changes": {"alignment_mode": "flat"},
                }
            },
            "arms.again and arms.flat have the same settings, so that there is nothing to compare",
        ),
        ({"arms": {}}, "arms must name at least two arms"),
        ({"data": 3}, "data must hold keys and values, not 3"),
    ],
)
def test_a_bad_plan_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = written(tmp_path, changed(**changes))
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        load_plan(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: [1", "is not valid YAML: line 1"),
        (b"arms:\n  flat: {}\n  flat: {}\n", "is not valid YAML: line 3: the key 'flat' stands"),
        (b"question: caf\xe9?", "broken.yaml, line 1 is not UTF-8 text"),
        (b"base: &a {lr: *a}", r"is not valid YAML: line 1: \*a stands inside of &a"),
    ],
)
def test_a_plan_that_is_no_yaml_is_named(tmp_path: Path, text: bytes, complaint: str) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(text)
    with pytest.raises(ValueError, match=r"^[^\n]*broken\.yaml[^\n]*$") as refusal:
        load_plan(broken)
    assert re.search(complaint, str(refusal.value))


def test_arms_have_the_names_that_are_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    text = written(tmp_path, changed()).read_text().replace("structured:", "no:")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert "no" in [arm.name for arm in load_plan(path).arms]


def test_a_plan_that_is_no_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"nor a shipped plan \(did you mean 'baselines'\?\)"):
        load_plan("baseline")


def test_a_plan_without_a_verdict_needs_no_second_seed_and_no_control() -> None:
    plan = read_plan(changed(seeds=[3], arms__wrong_sample=None, primary__test="none"))
    assert plan.seeds == (3,)


def test_an_arm_may_have_fewer_seeds_than_the_plan() -> None:
    plan = read_plan(changed(arms__flat__seeds=1, primary__test="none"))
    assert [plan.seeds_of(arm) for arm in plan.arms] == [(0,), (0, 1), (0, 1)]
    assert plan.canonical()["arms"]["flat"]["seeds"] == 1
    assert read_plan(plan.canonical()) == plan
    assert "5 runs" in plan_table(plan, plan.arms, plan.seeds)


@pytest.mark.parametrize("name", ["baselines", "flat_vs_structured"])
def test_a_plan_of_an_earlier_version_keeps_its_hash(name: str) -> None:
    lock = json.loads((SHIPPED / name / "plan.lock.json").read_text())
    assert read_plan(lock["plan"]).hash == lock["plan_hash"]


def test_a_reference_may_have_a_budget_of_its_own() -> None:
    reference = {"what": "longer", "role": "reference", "changes": {"max_steps": 8}}
    plan = read_plan(changed(arms__long=reference))
    assert train_config(plan, plan.arm("long"), 0, "x").max_steps == 8


def test_the_tests_are_those_of_the_statistics() -> None:
    assert {*TESTS} == {*STATISTICAL_TESTS, "none"}


@pytest.mark.parametrize("name", shipped_plans())
def test_a_shipped_plan_dry_runs(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    assert plan.question.endswith("?")
    table = plan_table(plan, plan.arms, plan.seeds)
    assert plan.hash in table
    for arm in plan.arms:
        assert arm.name in table
    assert "wrong_sample=True" in table


def test_the_shipped_plans_ask_what_they_are_for() -> None:
    plans = {name: load_plan(name) for name in shipped_plans()}
    assert {*plans} == {
        "ablations", "baselines", "eviction", "every_seed", "flat_vs_structured", "gpt2_gsm8k",
        "more_teachers", "pretrained",
        "qwen_reasoning_mix", "several_teachers", "shared_families", "shared_space", "word_arms",
        "word_maps", "word_maps_long",
    }  # fmt: skip
    main: Plan = plans["flat_vs_structured"]
    assert (len(main.seeds), main.budget.steps, main.data.test_items) == (5, 1500, 1000)
    words = plans["word_maps"]
    assert len(words.seeds) >= 10
    assert words.primary.minimum_effect == 0.03
    for name, plan in plans.items():
        if name.startswith(("gpt2", "qwen")):
            continue
        controls = [arm for arm in plan.arms if arm.role == "control"]
        assert any(arm.changes.get("wrong_sample") for arm in controls), name
    gpt2 = plans["gpt2_gsm8k"]
    assert (gpt2.data.subset_size, gpt2.budget.epochs, gpt2.budget.batch_size) == (1000, 3, 8)
    assert train_config(gpt2, gpt2.baseline, 0, "x").lr == 5e-5
    mix = "mix:gsm8k=0.4,svamp=0.2,strategyqa=0.2,arc=0.2"
    assert plans["qwen_reasoning_mix"].data.train == mix
