"""The arms differ in what their names say, and in nothing else."""

from dataclasses import asdict
from typing import Any

import pytest

from kava.demo.arms import EVICTION, MAIN, Arm, Study, num_curve_items, train_config

BOTH = [(study, arm) for study in (MAIN, EVICTION) for arm in study.arms]
NAMES = [f"{study.name}-{arm.name}" for study, arm in BOTH]


def settings(study: Study, arm: Arm, seed: int = 0) -> dict[str, Any]:
    return asdict(train_config(study, arm, seed, num_steps=1500, num_items=1000))


def test_the_arms_are_those_of_the_demo() -> None:
    assert [arm.name for arm in MAIN.arms] == [
        "written", "none", "pause", "ce", "codi", "kv", "kv_jacobi", "codi_kv",
    ]  # fmt: skip
    assert {arm.name for arm in EVICTION.arms} == {
        "positions", "rkv", "rkv_official", "h2o", "random", "uniform", "right_crop",
    }  # fmt: skip


@pytest.mark.parametrize(("study", "arm"), BOTH, ids=NAMES)
def test_an_arm_differs_from_a_bare_one_in_its_own_keys_only(study: Study, arm: Arm) -> None:
    bare = Arm(name="bare", what="", group="without", changes={"kv_weight": 0.0})
    ours, common = settings(study, arm), settings(study, bare)
    differing = {key for key in ours if ours[key] != common[key]}
    # the eviction arms all match the cache, which the bare arm does not
    assert differing <= {*arm.changes, *(["kv_weight"] if study is EVICTION else [])}


@pytest.mark.parametrize("study", [MAIN, EVICTION], ids=lambda study: study.name)
def test_all_arms_get_the_same_samples_order_and_steps(study: Study) -> None:
    budget = (
        "dataset_name", "split", "subset_size", "eval_dataset_name", "eval_size", "seed",
        "max_steps", "batch_size", "gradient_accumulation_steps", "lr", "lr_scheduler",
        "warmup_steps", "weight_decay", "max_grad_norm", "model_name", "max_length",
    )  # fmt: skip
    seen = {tuple(settings(study, arm)[key] for key in budget) for arm in study.arms}
    assert len(seen) == 1


@pytest.mark.parametrize(("study", "arm"), BOTH, ids=NAMES)
def test_a_teacher_runs_only_where_there_is_a_signal_from_it(study: Study, arm: Arm) -> None:
    config = train_config(study, arm, 0, num_steps=10, num_items=10)
    assert config.teacher_name == config.model_name
    assert config.needs_teacher == bool(config.kv_weight or config.codi_weight)
    assert not config.self_distillation


def test_what_the_names_say() -> None:
    arms = {arm.name: settings(MAIN, arm) for arm in MAIN.arms}
    weights = {name: (arm["codi_weight"], arm["kv_weight"]) for name, arm in arms.items()}
    assert weights == {
        "written": (0, 0), "none": (0, 0), "pause": (0, 0), "ce": (0, 0),
        "codi": (5, 0), "kv": (0, 5), "kv_jacobi": (0, 5), "codi_kv": (5, 5),
    }  # fmt: skip
    assert arms["written"]["student"] == "explicit"
    assert arms["none"]["target_len"] == 0
    assert (arms["pause"]["decoding"], arms["pause"]["jacobi_iterations"]) == ("jacobi", 0)
    assert (arms["kv_jacobi"]["decoding"], arms["kv_jacobi"]["jacobi_iterations"]) == ("jacobi", 2)
    latent = [name for name in arms if name not in ("written", "none")]
    assert {arms[name]["target_len"] for name in latent} == {3}


def test_each_rule_of_the_eviction_study_is_used() -> None:
    for arm in EVICTION.arms:
        config = settings(EVICTION, arm)
        assert (config["kv_method"], config["kv_weight"]) == (arm.name, 5)


def test_curves_and_final_questions_come_from_one_list_without_overlap() -> None:
    config = train_config(MAIN, MAIN.arms[0], 0, num_steps=1500, num_items=1000)
    assert f"num_test={num_curve_items(1000) + 1000}" in str(config.eval_dataset_name)
    assert config.eval_size == num_curve_items(1000)


def test_chosen_arms_keep_their_order() -> None:
    assert [arm.name for arm in MAIN.choose(["kv", "none"])] == ["none", "kv"]
    assert MAIN.choose(None) == MAIN.arms


def test_an_unknown_arm_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"--arms 'rkv' is unknown; choose from written, none"):
        MAIN.choose(["kv", "rkv"])
