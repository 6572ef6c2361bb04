"""The element-wise KV loss against slow loops written from its formula."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kava.losses import KVLoss, build_kv_loss
from kava.trace import KVTrace

from .conftest import MakePair


def element(norm: str, x: float, beta: float) -> float:
    if norm == "mse":
        return x * x
    if norm == "l1":
        return abs(x)
    return x * x / (2 * beta) if abs(x) < beta else abs(x) - beta / 2


def oracle(loss: KVLoss, student: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> float:
    """One term (keys or values) of the loss, number by number."""
    B, L, H, M, D = student.shape
    total, count = 0.0, 0
    for b in range(B):
        valid = [m for m in range(M) if mask[b, m]]
        for m in valid:
            count += 1
            layers = []
            for layer in range(L):
                std = pstdev(
                    float(target[b, layer, h, n, d])
                    for h in range(H)
                    for n in valid
                    for d in range(D)
                )
                std = std if loss.layer_std else 1.0
                errors = [
                    element(
                        loss.norm,
                        float(student[b, layer, h, m, d] - target[b, layer, h, m, d]) / std,
                        loss.beta,
                    )
                    for h in range(H)
                    for d in range(D)
                ]
                layers.append(fmean(errors))
            total += fmean(layers, weights=loss.layer_weights)
    return total / count


@pytest.mark.parametrize(
    "loss",
    [
        KVLoss(),
        KVLoss(beta=0.3),
        KVLoss(norm="mse"),
        KVLoss(norm="l1"),
        KVLoss(layer_std=True),
        KVLoss(norm="mse", layer_std=True, layer_weights=[3.0, 1.0]),
        KVLoss(norm="l1", key_weight=0.25, value_weight=2.0),
    ],
    ids=str,
)
def test_the_loss_is_its_formula(loss: KVLoss, make_pair: MakePair) -> None:
    student, target = make_pair()
    ours, theirs = student.detach(), target.detach()
    keys = oracle(loss, ours.keys, theirs.keys, target.valid_BT())
    values = oracle(loss, ours.values, theirs.values, target.valid_BT())
    found, metrics = loss(student, target)
    assert found.item() == pytest.approx(
        (loss.key_weight * keys + loss.value_weight * values) / 2, rel=1e-5
    )
    assert metrics["kv_k"].item() == pytest.approx(keys, rel=1e-5)
    assert metrics["kv_v"].item() == pytest.approx(values, rel=1e-5)


def test_it_is_the_paper_s_loss_up_to_the_number_of_layers_heads_and_dims(
    make_pair: MakePair,
) -> None:
    student, target = make_pair(lengths=(4,))
    paper = sum(
        (ours - theirs).square().sum() / (2 * student.length)
        for ours, theirs in ((student.keys, target.keys), (student.values, target.values))
    )
    loss, _ = KVLoss(norm="mse")(student, target)
    size = student.num_layers * student.num_heads * student.head_dim
    torch.testing.assert_close(loss * size, paper)


def test_alphas_of_one_are_smooth_l1_and_each_alpha_weighs_its_term(make_pair: MakePair) -> None:
    student, target = make_pair()
    plain, terms = build_kv_loss("smooth_l1")(student, target)
    assert build_kv_loss("smooth_l1_alpha")(student, target)[0] == plain
    weighted, _ = build_kv_loss("smooth_l1_alpha", alpha_k=3.0, alpha_v=0.0)(student, target)
    torch.testing.assert_close(weighted, 1.5 * terms["kv_k"])


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-3, 3),
    norm=st.sampled_from(["smooth_l1", "mse", "l1"]),
)
def test_layer_std_makes_the_loss_free_of_the_layers_scale(
    scale: float, shift: float, norm: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values, t_keys, t_values = torch.randn(4, 2, 2, 2, 3, 4, generator=generator).unbind()
    loss_fn = KVLoss(norm=norm, layer_std=True)  # type: ignore[arg-type]
    loss, _ = loss_fn(KVTrace(keys, values), KVTrace(t_keys, t_values))
    scaled, _ = loss_fn(
        KVTrace(scale * (keys + shift), values), KVTrace(scale * (t_keys + shift), t_values)
    )
    torch.testing.assert_close(scaled, loss, rtol=1e-3, atol=1e-5)


def test_a_layer_without_spread_is_compared_undivided(make_pair: MakePair) -> None:
    student, target = make_pair()
    flat = torch.full_like(target.keys, 0.7)
    loss, metrics = KVLoss(layer_std=True)(student, replace(target, keys=flat))
    _, undivided = KVLoss()(student, replace(target, keys=flat))
    torch.testing.assert_close(metrics["kv_k"], undivided["kv_k"])
    loss.backward()
    assert student.keys.grad is not None
    assert torch.isfinite(student.keys.grad).all()


def test_position_weights_pick_positions_sample_by_sample(make_pair: MakePair) -> None:
    student, target = make_pair(lengths=(4, 2))
    weights = torch.tensor([[0.0, 7.0, 0.0, 0.0], [0.5, 0.0, 9.0, 9.0]], requires_grad=True)
    loss, _ = KVLoss(norm="l1")(student, target, position_weights=weights)
    only = torch.zeros(2, 4, dtype=torch.bool)
    only[0, 1] = only[1, 0] = True
    first, _ = KVLoss(norm="l1")(student, replace(target, mask=only & (only.cumsum(1) == 1)), 1)
    by_sample = [
        KVLoss(norm="l1")(student.samples([b]), replace(target, mask=only).samples([b]), 1)[0]
        for b in range(2)
    ]
    torch.testing.assert_close(first, by_sample[0] + by_sample[1])
    torch.testing.assert_close(loss, (4 * by_sample[0] + 2 * by_sample[1]) / 6)
    loss.backward()
    assert weights.grad is None


def test_layer_weights_of_the_call_take_the_place_of_the_losses_own(make_pair: MakePair) -> None:
    student, target = make_pair()
    own, _ = KVLoss(layer_weights=[1.0, 3.0])(student, target)
    given, _ = KVLoss(layer_weights=[3.0, 1.0])(student, target, layer_weights=[1.0, 3.0])
    assert own == given


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm='huber' is unknown; choose from smooth_l1, mse, l1"):
        KVLoss(norm="huber")  # type: ignore[arg-type]
