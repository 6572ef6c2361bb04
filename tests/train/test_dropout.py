"""Dropout: the student's passes have it, and what its teacher gives does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import distiller_and_batch, small
from torch import nn

from kava.train.objective import Distiller

VERBOSE = "kava/shell-game?form=verbose&student_form=compact&num_train=16"


def with_dropout(distiller: Distiller, share: float = 0.5) -> Distiller:
    """Training mode, with dropout in all layers that can have it."""
    for module in distiller.base.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
    return distiller.train()


@pytest.mark.parametrize("shared_prompt", [True, False])
@pytest.mark.parametrize("name", ["kava/tiny-gpt2", "kava/tiny-llama"])
@pytest.mark.parametrize("options", [{}, {"codi_weight": 1.0, "attention_weighted_kv": True}])
def test_the_target_of_a_batch_is_the_same_in_every_pass(
    name: str, shared_prompt: bool, options: dict[str, Any]
) -> None:
    config = small(model_name=name, dataset_name=VERBOSE, max_length=256, **options)
    distiller, batch = distiller_and_batch(config)
    batch["shared_prompt"] = shared_prompt
    quiet = distiller.eval()(batch).target
    first, second = (with_dropout(distiller)(batch) for _ in range(2))
    for forward in (first, second):
        assert torch.equal(forward.target.columns, quiet.columns)
        assert torch.equal(forward.target.trace.keys, quiet.trace.keys)
        assert torch.equal(forward.target.trace.values, quiet.trace.values)
        if quiet.weights is not None:
            assert torch.equal(forward.target.weights, quiet.weights)
    assert torch.equal(first.metrics["teacher_ce"], second.metrics["teacher_ce"])
    assert not torch.equal(first.student.values, second.student.values)
    assert first.metrics["ce"] != second.metrics["ce"]
    assert all(module.training for module in distiller.modules())


def test_the_written_text_is_still_trained() -> None:
    config = small(model_name="kava/tiny-gpt2", max_length=256, kv_weight=0.0, ce_weight=0.0)
    distiller, batch = distiller_and_batch(config)
    with_dropout(distiller)(batch).loss.backward()
    gradients = [p.grad for p in distiller.base.parameters() if p.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
