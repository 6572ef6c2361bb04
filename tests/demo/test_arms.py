"""The arms differ in what their names say, and in nothing else."""

from dataclasses import asdict
from typing import Any

import pytest

from kava.demo.arms import (
    EVICTION,
    MAIN,
    TEACHER,
    Arm,
    Study,
    eviction_study,
    num_curve_items,
    train_config,
)
from kava.demo.hetero import HETERO, HETERO_TEACHER, JOINT, RANK, RANKS

STUDIES = (MAIN, EVICTION, eviction_study(5), HETERO, RANK, JOINT)
ALL = [(study, arm) for study in STUDIES for arm in study.arms]
NAMES = [f"{study.name}-{arm.name}" for study, arm in ALL]


def settings(study: Study, arm: Arm, seed: int = 0) -> dict[str, Any]:
    return asdict(train_config(study, arm, seed, num_steps=1500, num_items=1000))


def test_the_arms_are_those_of_the_demo() -> None:
    assert [arm.name for arm in MAIN.arms] == [
        "written", "none", "pause", "ce", "codi", "kv", "kv_jacobi", "codi_kv",
    ]  # fmt: skip
    for study in (EVICTION, eviction_study(5)):
        assert {arm.name for arm in study.arms} == {
            "positions", "knockout", "rkv", "rkv_official", "h2o", "random", "uniform",
            "right_crop",
        }  # fmt: skip
    assert [arm.name for arm in HETERO.arms] == [
        "ce", "wrong_sample", "per_head", "rank_8", "flat", "shared", "uniform", "random", "joint",
    ]  # fmt: skip
    assert [arm.name for arm in RANK.arms] == [*(f"rank_{rank}" for rank in RANKS), "full"]
    assert [arm.name for arm in JOINT.arms] == [
        "joint", "joint_wrong", "calibrated_joint", "calibrated", "back_joint", "back_joint_wrong",
        "back_calibrated",
    ]  # fmt: skip


def test_the_studies_are_told_apart() -> None:
    assert [(study.name, study.kind) for study in STUDIES] == [
        ("demo", "main"), ("demo-eviction", "eviction"), ("demo-eviction-5", "eviction"),
        ("demo-hetero", "maps"), ("demo-rank", "rank"), ("demo-joint", "joint"),
    ]  # fmt: skip


def test_every_study_but_the_first_has_three_seeds() -> None:
    for study in STUDIES[1:]:
        assert {arm.num_seeds for arm in study.arms} == {3}


@pytest.mark.parametrize(("study", "arm"), ALL, ids=NAMES)
def test_an_arm_differs_from_a_bare_one_in_its_own_keys_only(study: Study, arm: Arm) -> None:
    bare = Arm(name="bare", what="", group="without", changes={"kv_weight": 0.0})
    ours, common = settings(study, arm), settings(study, bare)
    differing = {key for key in ours if ours[key] != common[key]}
    # the eviction arms all match the cache, which the bare arm does not
    assert differing <= {*arm.changes, *(["kv_weight"] if study.kind == "eviction" else [])}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_all_arms_get_the_same_samples_order_and_steps(study: Study) -> None:
    budget = (
        "dataset_name", "split", "subset_size", "eval_dataset_name", "eval_size", "seed",
        "max_steps", "batch_size", "gradient_accumulation_steps", "lr", "lr_scheduler",
        "warmup_steps", "weight_decay", "max_grad_norm", "model_name", "max_length",
        "teacher_name", "calibration_samples", "token_alignment", "key_space", "layer_mapping",
    )  # fmt: skip
    seen = {tuple(settings(study, arm)[key] for key in budget) for arm in study.arms}
    assert len(seen) == 1


@pytest.mark.parametrize(("study", "arm"), ALL, ids=NAMES)
def test_a_teacher_runs_only_where_there_is_a_signal_from_it(study: Study, arm: Arm) -> None:
    config = train_config(study, arm, 0, num_steps=10, num_items=10)
    assert config.model_name == TEACHER
    assert config.teacher_name == (HETERO_TEACHER if study.teacher_name else TEACHER)
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


@pytest.mark.parametrize("num_latents", [3, 5])
def test_each_rule_of_the_eviction_study_is_used(num_latents: int) -> None:
    study = eviction_study(num_latents)
    assert study.num_latents == num_latents
    for arm in study.arms:
        config = settings(study, arm)
        assert (config["kv_method"], config["kv_weight"]) == (arm.name, 5)
        assert config["target_len"] == num_latents


@pytest.mark.parametrize("num_latents", [2, 16])
def test_an_eviction_study_of_too_few_or_too_many_is_refused(num_latents: int) -> None:
    with pytest.raises(ValueError, match=f"--num_latents {num_latents} is out of range: 3 tokens"):
        eviction_study(num_latents)


def test_what_the_names_of_the_maps_say() -> None:
    arms = {
        (study.name, arm.name): train_config(study, arm, 0, num_steps=10, num_items=10)
        for study in (HETERO, RANK, JOINT)
        for arm in study.arms
    }
    for (study_name, name), config in arms.items():
        assert config.wrong_sample == ("wrong" in name)
        assert (config.align_direction == "student_to_teacher") == name.startswith("back_")
        assert config.trains_aligner == ("joint" in name)
        frozen = {"ce", "uniform", "random"}
        joint = {n for _, n in arms if "joint" in n} - {"calibrated_joint"}
        assert config.calibrates == (name not in frozen | joint)
        if name.startswith("rank_"):
            assert (config.map_rank, config.map_proj_share_dim) == (name[5:], True)
        if name in ("flat", "full") or study_name == "demo-joint":
            assert config.alignment_mode == "flat"
    assert arms["demo-hetero", "ce"].kv_weight == 0
    assert not arms["demo-hetero", "per_head"].map_proj_share_dim
    assert arms["demo-hetero", "shared"].map_rank is None
    assert arms["demo-hetero", "uniform"].map_proj_init_uniform
    assert not arms["demo-hetero", "random"].map_proj_init_uniform


def test_curves_and_final_questions_come_from_one_list_without_overlap() -> None:
    config = train_config(MAIN, MAIN.arms[0], 0, num_steps=1500, num_items=1000)
    assert f"num_test={num_curve_items(1000) + 1000}" in str(config.eval_dataset_name)
    assert config.eval_size == num_curve_items(1000)


def test_chosen_arms_keep_their_order() -> None:
    assert [arm.name for arm in MAIN.choose(["kv", "none"])] == ["none", "kv"]
    assert MAIN.choose(None) == MAIN.arms


def test_an_unknown_arm_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"--arms 'rkv' is unknown .* choose written, none"):
        MAIN.choose(["kv", "rkv"])
