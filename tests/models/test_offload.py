"""Resting models: where their weights are during a pass and between passes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from families import FAMILIES, VOCAB_SIZE
from kava.models.capture import capture
from kava.models.offload import Resting

IDS = torch.arange(12).view(2, 6) % VOCAB_SIZE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_pass_works_on_copies_that_are_freed_behind_it(family: str) -> None:
    model = FAMILIES[family]().requires_grad_(False)
    expected = capture(model, IDS)[1].keys
    homes = [part.data_ptr() for part in model.parameters()]
    copies: list[weakref.ref[Tensor]] = []

    def bring(part: Tensor) -> Tensor:
        copy = part.clone()
        copies.append(weakref.ref(copy))
        return copy

    resting = Resting()
    resting.add(model, bring)
    with resting.awake(model), resting.awake(model):
        away = [part.data_ptr() for part in model.parameters()]
        found = capture(model, IDS)[1].keys
    assert not {*away} & {*homes}
    assert torch.equal(found, expected)
    assert [part.data_ptr() for part in model.parameters()] == homes
    names = [*model.parameters(), *model.buffers()]
    assert len(copies) == len(names)  # once, although the blocks lie in each other
    gc.collect()
    assert not any(copy() is not None for copy in copies)


def test_tied_weights_stay_tied_and_an_error_brings_them_back() -> None:
    model = FAMILIES["gpt2"]().requires_grad_(False)
    resting = Resting()
    resting.add(model, torch.clone)
    home = model.lm_head.weight.data_ptr()
    with resting.awake(model):
        assert model.lm_head.weight is model.transformer.wte.weight
        assert model.lm_head.weight.data_ptr() != home
    with pytest.raises(ValueError, match="input_ids hold 768"), resting.awake(model):
        capture(model, torch.tensor([[768]]))
    assert model.lm_head.weight.data_ptr() == home


def test_a_model_that_does_not_rest_is_moved_once() -> None:
    model = FAMILIES["llama"]()
    resting = Resting()
    resting.place([model, model], torch.device("meta"), rest=False)
    with resting.awake(model):
        assert model.device.type == "meta"
    assert model.device.type == "meta"


def test_a_resting_model_stays_where_it_is_until_it_is_awake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FAMILIES["llama"]().requires_grad_(False)
    resting = Resting()
    resting.place([model], torch.device("meta"), rest=True)
    assert model.device.type == "cpu"
    asked: list[torch.device] = []

    def to(part: Tensor, device: torch.device) -> Tensor:
        asked.append(device)
        return part.clone()

    monkeypatch.setattr(Tensor, "to", to)  # a parameter takes no data of the meta device
    with resting.awake(model):
        assert len(asked) == len([*model.parameters(), *model.buffers()])
    assert {device.type for device in asked} == {"meta"}
