"""The names that need no torch are those of the registries."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import SchedulerType

from kava import names
from kava.align import CKA_LAYER_MAPS, LAYER_MAPS
from kava.eviction import EVICTIONS
from kava.losses import KV_LOSSES
from kava.names import Names
from kava.train.config import TrainConfig

REGISTRIES = {
    names.EVICTION_NAMES: EVICTIONS,
    names.KV_LOSS_NAMES: KV_LOSSES,
    names.LAYER_MAP_NAMES: LAYER_MAPS,
    names.CKA_LAYER_MAP_NAMES: CKA_LAYER_MAPS,
}


@pytest.mark.parametrize("known", REGISTRIES, ids=lambda known: known.registry)
def test_the_names_that_ship_are_those_that_register(known: Names) -> None:
    module, _, attribute = known.registry.partition(":")
    program = f"import sys, {module}; print(*sys.modules[{module!r}].{attribute})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert list(known.shipped) == done.stdout.split(), done.stderr
    assert list(known) == list(REGISTRIES[known])


def test_a_name_that_is_registered_later_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--layer_mapping 'mine' is unknown"):
        TrainConfig(layer_mapping="mine")
    monkeypatch.setitem(LAYER_MAPS, "mine", LAYER_MAPS["ratio"])
    assert TrainConfig(layer_mapping="mine").layer_mapping == "mine"


def test_the_trackers_are_those_of_transformers() -> None:
    assert {*names.TRACKERS} == {"none", *INTEGRATION_TO_CALLBACK}


@pytest.mark.parametrize("name", list(SchedulerType))
def test_the_schedulers_are_those_that_need_no_further_setting(name: SchedulerType) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        schedule = get_scheduler(name.value, optimizer, num_warmup_steps=2, num_training_steps=10)
        optimizer.step()
        schedule.step()
        runs = True
    except (TypeError, ValueError):
        runs = False
    assert (name.value in names.SCHEDULERS) == runs
