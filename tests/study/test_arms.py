"""Every arm of the plans for the CPU takes another path than its baseline."""

import re

import pytest
import torch

from kava.study.plan_file import load_plan
from kava.study.settings import train_config
from train.runs import distiller_and_batch

MEASURED = {"routing_cka"}
"""Arms whose change shows when a run is built, not in its first batch."""

CASES = [
    (plan, arm.name)
    for plan in ("ablations", "baselines", "eviction", "every_seed", "flat_vs_structured")
    for arm in load_plan(plan, check_settings=False).arms
    if arm.role != "baseline" and arm.name not in MEASURED
]


def loss_of(plan_name: str, arm_name: str) -> float:
    from dataclasses import replace

    plan = load_plan(plan_name, check_settings=False)
    arm = plan.baseline if arm_name == "baseline" else plan.arm(arm_name)
    config = train_config(plan, arm, 0, "unused")
    small = re.sub(r"num_train=\d+", "num_train=16", config.dataset_name)
    config = replace(config, dataset_name=small, eval_size=0)
    distiller, batch = distiller_and_batch(config)
    with torch.no_grad():
        return float(distiller.eval()(batch).loss)


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "arm"), CASES)
def test_an_arm_changes_the_loss(plan: str, arm: str) -> None:
    assert loss_of(plan, arm) != pytest.approx(loss_of(plan, "baseline"), rel=1e-5)
