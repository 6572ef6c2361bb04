"""The arms differ in what their names say, and in nothing else."""

from dataclasses import asdict
from typing import Any

import pytest

from kava.demo.arms import EVICTION, MAIN, TEACHER, Demo, eviction_demo, plan_of
from kava.demo.hetero import HETERO, HETERO_TEACHER, JOINT, RANK, RANKS
from kava.study.plan import Arm
from kava.study.plan_file import read_plan
from kava.study.settings import check_arms, train_config
from kava.train.config import TrainConfig

DEMOS = (MAIN, EVICTION, eviction_demo(5), HETERO, RANK, JOINT)
ALL = [(demo, arm) for demo in DEMOS for arm in demo.arms]
NAMES = [f"{demo.name}-{arm.name}" for demo, arm in ALL]


def config_of(demo: Demo, arm: Arm) -> TrainConfig:
    return train_config(plan_of(demo), arm, 0, "unused")


def settings(demo: Demo, arm: Arm) -> dict[str, Any]:
    return asdict(config_of(demo, arm))


def test_the_arms_are_those_of_the_demo() -> None:
    assert [arm.name for arm in MAIN.arms] == [
        "written", "none", "pause", "ce", "text_ce", "codi", "kv", "kv_jacobi", "codi_kv",
    ]  # fmt: skip
    for demo in (EVICTION, eviction_demo(5)):
        assert {arm.name for arm in demo.arms} == {
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


def test_the_demos_are_told_apart() -> None:
    assert [(demo.name, demo.kind) for demo in DEMOS] == [
        ("demo", "main"), ("demo-eviction", "eviction"), ("demo-eviction-5", "eviction"),
        ("demo-hetero", "maps"), ("demo-rank", "rank"), ("demo-joint", "joint"),
    ]  # fmt: skip


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.name)
def test_the_plan_is_one_that_a_study_takes(demo: Demo) -> None:
    plan = plan_of(demo, num_items=40)
    check_arms(plan)
    assert read_plan(plan.canonical()) == plan
    assert plan.question == demo.question
    assert (plan.data.curve_items, plan.data.test_items) == (40, 40)  # of one list, in this order
    assert "num_test=80" in plan.data.test


def test_every_demo_but_the_first_has_three_seeds() -> None:
    for demo in DEMOS[1:]:
        plan = plan_of(demo)
        assert {plan.seeds_of(arm) for arm in plan.arms} == {(0, 1, 2)}
    plan = plan_of(MAIN)
    assert [len(plan.seeds_of(arm)) for arm in plan.arms] == [1, 1, 1, 1, 1, 1, 2, 2, 1]
    plan = plan_of(MAIN, num_seeds=3)
    assert {len(plan.seeds_of(arm)) for arm in plan.arms} == {3}


@pytest.mark.parametrize(("demo", "arm"), ALL, ids=NAMES)
def test_an_arm_differs_from_a_bare_one_in_its_own_keys_only(demo: Demo, arm: Arm) -> None:
    bare = Arm(name="bare", what="", role="control", changes={"kv_weight": 0.0})
    ours, common = settings(demo, arm), settings(demo, bare)
    differing = {key for key in ours if ours[key] != common[key]}
    # the eviction arms all match the cache, which the bare arm does not
    assert differing <= {*arm.changes, *(["kv_weight"] if demo.kind == "eviction" else [])}


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.name)
def test_all_arms_get_the_same_samples_order_and_steps(demo: Demo) -> None:
    budget = (
        "dataset_name", "split", "subset_size", "eval_dataset_name", "eval_size", "seed",
        "max_steps", "batch_size", "gradient_accumulation_steps", "lr", "lr_scheduler",
        "warmup_steps", "weight_decay", "max_grad_norm", "model_name", "max_length",
        "teacher_name", "calibration_samples", "token_alignment", "key_space", "layer_mapping",
    )  # fmt: skip
    seen = {tuple(settings(demo, arm)[key] for key in budget) for arm in demo.arms}
    assert len(seen) == 1


@pytest.mark.parametrize(("demo", "arm"), ALL, ids=NAMES)
def test_a_teacher_runs_only_where_there_is_a_signal_from_it(demo: Demo, arm: Arm) -> None:
    config = config_of(demo, arm)
    assert config.model_name == TEACHER
    assert config.teacher_name == (HETERO_TEACHER if demo.teacher_name else TEACHER)
    assert config.needs_teacher == bool(config.kv_weight or config.codi_weight)
    assert not config.self_distillation


def test_what_the_names_say() -> None:
    arms = {arm.name: settings(MAIN, arm) for arm in MAIN.arms}
    weights = {name: (arm["codi_weight"], arm["kv_weight"]) for name, arm in arms.items()}
    assert weights == {
        "written": (0, 0), "none": (0, 0), "pause": (0, 0), "ce": (0, 0), "text_ce": (0, 0),
        "codi": (5, 0), "kv": (0, 5), "kv_jacobi": (0, 5), "codi_kv": (5, 5),
    }  # fmt: skip
    reads = {name for name, arm in arms.items() if arm["text_ce_weight"] == 1}
    assert reads == {"text_ce"}
    assert arms["written"]["student"] == "explicit"
    assert arms["none"]["target_len"] == 0
    assert (arms["pause"]["decoding"], arms["pause"]["jacobi_iterations"]) == ("jacobi", 0)
    assert (arms["kv_jacobi"]["decoding"], arms["kv_jacobi"]["jacobi_iterations"]) == ("jacobi", 2)
    latent = [name for name in arms if name not in ("written", "none")]
    assert {arms[name]["target_len"] for name in latent} == {3}


@pytest.mark.parametrize("num_latents", [3, 5])
def test_each_rule_of_the_eviction_demo_is_used(num_latents: int) -> None:
    demo = eviction_demo(num_latents)
    assert demo.num_latents == num_latents
    for arm in demo.arms:
        config = settings(demo, arm)
        assert (config["kv_method"], config["kv_weight"]) == (arm.name, 5)
        assert config["target_len"] == num_latents


@pytest.mark.parametrize("num_latents", [2, 16])
def test_an_eviction_demo_of_too_few_or_too_many_is_refused(num_latents: int) -> None:
    with pytest.raises(ValueError, match=f"--num_latents {num_latents} is out of range: 3 tokens"):
        eviction_demo(num_latents)


def test_what_the_names_of_the_maps_say() -> None:
    arms = {
        (demo.name, arm.name): config_of(demo, arm)
        for demo in (HETERO, RANK, JOINT)
        for arm in demo.arms
    }
    for (demo_name, name), config in arms.items():
        assert config.wrong_sample == ("wrong" in name)
        assert (config.align_direction == "student_to_teacher") == name.startswith("back_")
        assert config.trains_aligner == ("joint" in name)
        frozen = {"ce", "uniform", "random"}
        joint = {n for _, n in arms if "joint" in n} - {"calibrated_joint"}
        assert config.calibrates == (name not in frozen | joint)
        if name.startswith("rank_"):
            assert (config.map_rank, config.map_proj_share_dim) == (name[5:], True)
        if name in ("flat", "full") or demo_name == "demo-joint":
            assert config.alignment_mode == "flat"
    assert arms["demo-hetero", "ce"].kv_weight == 0
    assert not arms["demo-hetero", "per_head"].map_proj_share_dim
    assert arms["demo-hetero", "shared"].map_rank is None
    assert arms["demo-hetero", "uniform"].map_proj_init_uniform
    assert not arms["demo-hetero", "random"].map_proj_init_uniform
