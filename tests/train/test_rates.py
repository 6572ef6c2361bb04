"""Two learning rates: that of the language model, and that of what is trained beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import interrupted, run, small, weights

from kava.train.build import build_run


def rates(trainer: Any) -> dict[str, float]:
    names = {id(part): name for name, part in trainer.model.named_parameters()}
    groups = trainer.optimizer.param_groups
    return {names[id(part)]: group["lr"] for group in groups for part in group["params"]}


@pytest.mark.parametrize("changes", [{}, {"lora_r": 2}], ids=["whole", "lora"])
def test_each_parameter_has_its_rate(changes: dict[str, Any], tmp_path: Path) -> None:
    options = {**changes, "lr": 1e-3, "lr_projector": 5e-3, "lr_scheduler": "constant"}
    trainer = build_run(small(tmp_path, **options)).trainer
    trainer.create_optimizer()
    found = rates(trainer)
    trained = {name for name, part in trainer.model.named_parameters() if part.requires_grad}
    assert found.keys() == trained
    for name, rate in found.items():
        assert rate == (1e-3 if name.startswith("student.base.") else 5e-3), name
    decays = {
        id(part): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for part in group["params"]
    }
    plain = build_run(small(tmp_path / "plain", **changes)).trainer
    plain.create_optimizer()
    for group in plain.optimizer.param_groups:
        names = dict(plain.model.named_parameters())
        for name in (n for n, p in names.items() if any(p is part for part in group["params"])):
            assert decays[id(dict(trainer.model.named_parameters())[name])] == group["weight_decay"]


def test_equal_rates_change_nothing_and_a_run_resumes(tmp_path: Path) -> None:
    plain = run(small(tmp_path / "a", lr=1e-3, max_steps=3))
    equal = run(small(tmp_path / "b", lr=1e-3, lr_projector=1e-3, max_steps=3))
    ours, theirs = weights(equal.trainer.model), weights(plain.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    options = {"lr": 1e-3, "lr_projector": 5e-3, "max_steps": 3, "save_steps": 1}
    whole = run(small(tmp_path / "c", **options))
    interrupted(small(tmp_path / "d", **options), 2)
    resumed = run(small(tmp_path / "d", **options, resume=True))
    ours, theirs = weights(resumed.trainer.model), weights(whole.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
