"""Several teachers where one of them is not there, not drawn, or has no weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kava.fuse.regularisers import entropy
from kava.train.build import build_run
from kava.train.router_terms import through_weights
from kava.train.routing import over_slots
from kava.train.teacher_names import RESERVED, split_label
from kava.train.wrong_sample import compared_slots
from train.runs import run
from train.test_several import GPT2, NAMED, batch_of, built, gradients, named, several

__all__ = ["named"]


def step(one: Any, batch: Any) -> dict[str, torch.Tensor]:
    """The gradients of one batch."""
    one.trainer.model.train().zero_grad()
    one.trainer.model(batch).loss.backward()
    return gradients(one)


def test_the_entropy_of_one_teacher_alone_has_a_finite_slope() -> None:
    logits = torch.tensor([[0.3, float("-inf")], [0.3, -0.2]], requires_grad=True)
    shares = torch.nan_to_num(logits.softmax(-1))
    found = entropy(shares)
    assert found[0] == 0
    assert found[1].item() == pytest.approx(torch.special.entr(shares[1]).sum().item())
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0


def test_an_answer_that_no_weight_changes_trains_no_router() -> None:
    weights = torch.rand(2, 1, 1, 2, requires_grad=True)
    loss = torch.rand(3, requires_grad=True).sum()
    term = through_weights(loss, weights)
    assert term == loss
    assert not term.requires_grad


def test_shares_are_means_over_the_slots_that_are_filled() -> None:
    weights = torch.rand(2, 3, 4, 2)
    filled = torch.tensor([[True, True, False, False], [False] * 4])
    found = over_slots(weights, filled)
    assert torch.allclose(found[0], weights[0, :, :2].mean(1))
    assert (found[1] == 0).all()


def test_a_policy_learns_from_a_batch_of_which_one_teacher_was_drawn(tmp_path: Path) -> None:
    one = built(
        tmp_path, fusion="learnable", router_learning="policy", router_type="gate", batch_size=1
    )
    one.trainer.model.reward_baseline.copy_(torch.tensor([-100.0, 1.0]))
    found = step(one, batch_of(one, 1))
    router = [part for name, part in found.items() if name.startswith("router.")]
    assert sum(float(part.abs().sum()) for part in router) > 0


@pytest.mark.parametrize("learning", ["likelihood", "policy"])
def test_maps_learn_beside_a_router_that_learns_from_answers(tmp_path: Path, learning: str) -> None:
    one = built(tmp_path, fusion="learnable", router_learning=learning, aligner_fit="joint")
    found = step(one, batch_of(one))
    for name in ("map_aligner.", "map_aligner_1."):
        assert sum(float(p.abs().sum()) for n, p in found.items() if n.startswith(name)) > 0


@pytest.mark.parametrize("changes", [{"fixed_weights": [1.0, 0.0]}, {"teacher_order": "in_turn"}])
def test_every_trained_parameter_has_a_gradient(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Processes of DDP wait for the gradients of all of them."""
    one = built(tmp_path, aligner_fit="joint", **changes)
    found = step(one, batch_of(one))
    trained = {n for n, p in one.trainer.model.named_parameters() if p.requires_grad}
    beside = {name for name in trained if not name.startswith("student.")}
    assert beside <= set(found)
    unread = [part for name, part in found.items() if name.startswith("map_aligner_1.")]
    assert all((part == 0).all() for part in unread)


def test_similarity_does_not_train_maps_to_be_alike(tmp_path: Path) -> None:
    one = built(tmp_path, fusion="similarity", aligner_fit="joint")
    model, batch = one.trainer.model.train(), batch_of(one)
    weighed = []
    weigh = type(model.fusion).weigh
    model.fusion.__class__.weigh = lambda self, offers: (
        weighed.append(weigh(self, offers)) or weighed[-1]
    )
    try:
        model(batch)
    finally:
        model.fusion.__class__.weigh = weigh
    assert weighed
    assert not any(part.requires_grad for part in weighed)


def test_slots_of_text_weigh_less_where_teachers_disagree(tmp_path: Path) -> None:
    one = built(
        tmp_path, student="explicit", fusion="disagreement", disagreement="weigh", kv_method="full"
    )
    assert step(one, batch_of(one))


def test_the_wrong_sample_is_there_where_its_teacher_reads_it(tmp_path: Path, named: str) -> None:
    one = built(tmp_path, **{**NAMED, "fusion": "fixed"}, dataset_name=named, wrong_sample=True)
    batch = batch_of(one, 4)
    batch.pop("before", None)
    batch["present"] = torch.tensor([[True, True], [False, True], [True, True], [True, True]])
    seen = []
    read = one.trainer.model.passes.read
    one.trainer.model.passes.read = lambda b, present, chosen: (
        seen.append(present) or read(b, present, chosen)
    )
    one.trainer.model(batch)
    assert seen[0].tolist() == [[True, True], [True, True], [False, True], [True, True]]


def test_slots_are_counted_in_the_texts_that_teachers_read(tmp_path: Path) -> None:
    """The first teacher reads a state in two tokens, the student and the second in one."""
    options = {"token_alignment": "none", "kv_method": "rkv", "target_len": 40, "keep_short": True}
    one = built(tmp_path, **options)
    batch = batch_of(one, 4)
    batch["present"] = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
    theirs, ours = (
        (text["segment_ids"] == 1).sum(1).tolist() for text in (batch["sides"][0], batch)
    )
    assert theirs[0] > ours[0]
    expected = [theirs[0], ours[1], theirs[2], theirs[3]]
    assert compared_slots(batch, one.trainer.model.settings).tolist() == expected


def test_a_temperature_that_moves_spans_the_run(tmp_path: Path) -> None:
    moves = {"fusion": "confidence", "fusion_temperature_end": 0.5, "lr_scheduler": "constant"}
    run(several(tmp_path, **moves))
    with pytest.raises(ValueError, match=r"--fusion_temperature_end 0\.5 spans the whole run"):
        build_run(several(tmp_path, resume=True, **{**moves, "max_steps": 4}))


@pytest.mark.parametrize("label", RESERVED)
def test_labels_that_logs_use_otherwise_are_refused(label: str) -> None:
    for name in (f"{label}={GPT2}", label):
        with pytest.raises(ValueError, match=f"names another number of the logs, route_{label}"):
            split_label(name)
