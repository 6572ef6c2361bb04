"""The direction loss: its values at known angles, lengths, masks and zero vectors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kava.losses import MercatorKVLoss
from kava.trace import KVTrace

from .conftest import MakePair


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 3, 2, 4, 6), (2, 4, 6)])
@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (100.0, 0.0), (-1.0, 2.0)])
def test_only_the_direction_counts(shape: tuple[int, ...], factor: float, expected: float) -> None:
    teacher = random(*shape)
    loss, metrics = MercatorKVLoss()(factor * teacher, teacher)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["cos_sim"].item() == pytest.approx(1 - expected, abs=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_a_number_that_is_not_finite_is_not_swallowed(side: int) -> None:
    pair = [torch.randn(1, 2, 2, 3, 4), torch.randn(1, 2, 2, 3, 4)]
    pair[side][0, 0, 0, 0, 0] = float("nan")
    assert MercatorKVLoss()(*pair)[0].isnan()


def test_orthogonal_vectors_cost_one() -> None:
    student, teacher = torch.zeros(2, 2, 2, 3, 4), torch.zeros(2, 2, 2, 3, 4)
    student[..., 0], teacher[..., 1] = 5.0, 0.1
    assert MercatorKVLoss()(student, teacher)[0].item() == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_any_positive_factor_leaves_the_direction_loss(factor: float, seed: int) -> None:
    student, teacher = random(2, 2, 2, 3, 8, seed=seed), random(2, 2, 2, 3, 8, seed=seed + 1)
    loss, _ = MercatorKVLoss()(student, teacher)
    scaled, _ = MercatorKVLoss()(factor * student, teacher)
    torch.testing.assert_close(scaled, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_beta_penalises_the_squared_log_of_the_lengths_ratio(factor: float) -> None:
    teacher = random(2, 2, 2, 3, 8)
    loss, metrics = MercatorKVLoss(alpha=1.0, beta=0.5)(factor * teacher, teacher)
    assert metrics["mag_loss"].item() == pytest.approx(math.log(factor) ** 2, rel=1e-5)
    assert loss.item() == pytest.approx(0.5 * math.log(factor) ** 2, rel=1e-5)
    assert MercatorKVLoss()(factor * teacher, teacher)[1]["mag_loss"].item() == 0


def test_the_loss_is_its_formula_under_a_mask() -> None:
    student, teacher = random(2, 2, 3, 4, 5, seed=1), random(2, 2, 3, 4, 5, seed=2)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    terms = []
    for b in range(2):
        for t in range(4):
            if not mask[b, t]:
                continue
            for layer in range(2):
                for h in range(3):
                    s, r = student[b, layer, h, t].tolist(), teacher[b, layer, h, t].tolist()
                    dot = sum(x * y for x, y in zip(s, r))
                    length_s, length_r = math.hypot(*s), math.hypot(*r)
                    gap = math.log(length_s) - math.log(length_r)
                    terms.append(0.7 * (1 - dot / (length_s * length_r)) + 0.2 * gap**2)
    loss, _ = MercatorKVLoss(alpha=0.7, beta=0.2)(student, teacher, mask)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_zero_vectors_are_safe(beta: float) -> None:
    student, teacher = random(1, 1, 1, 4, 3), random(1, 1, 1, 4, 3, seed=1)
    student[..., 0, :] = 0
    teacher[..., 1, :] = 0
    student[..., 2, :] = teacher[..., 2, :] = 0
    student.requires_grad_()
    loss, metrics = MercatorKVLoss(beta=beta)(student, teacher)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert student.grad.abs().max() < 100
    last = torch.nn.functional.cosine_similarity(student[..., 3, :], teacher[..., 3, :], dim=-1)
    # A zero student costs 1, a zero teacher nothing, both zero nothing.
    assert metrics["dir_loss"].item() == pytest.approx((1 + 0 + 0 + 1 - last.item()) / 4)


def test_traces_average_keys_and_values(make_pair: MakePair) -> None:
    student, target = make_pair()
    loss_fn = MercatorKVLoss(beta=0.1)
    keys, _ = loss_fn(student.keys, target.keys, target.mask)
    values, _ = loss_fn(student.values, target.values, target.mask)
    loss, metrics = loss_fn(student, target)
    torch.testing.assert_close(loss, (keys + values) / 2)
    torch.testing.assert_close(metrics["kv_k"], keys.detach())


def test_input_that_does_not_fit_is_refused(make_pair: MakePair) -> None:
    student, target = make_pair()
    loss_fn = MercatorKVLoss()
    with pytest.raises(ValueError, match="compared by their own masks"):
        loss_fn(student, target, target.mask)
    with pytest.raises(ValueError, match="two tensors or two traces"):
        loss_fn(student, target.keys)
    with pytest.raises(ValueError, match="differ in shape"):
        loss_fn(student.keys, target.keys[:, :1])
    with pytest.raises(ValueError, match=r"mask must be \[3, 4\], got \(3, 1\)"):
        loss_fn(student.keys, target.keys, torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"must be \[B, L, H, T, D\]"):
        loss_fn(torch.ones(2, 3), torch.ones(2, 3))


def test_the_teacher_gets_no_gradient() -> None:
    student = random(1, 1, 1, 2, 3).requires_grad_()
    teacher = random(1, 1, 1, 2, 3, seed=1).requires_grad_()
    MercatorKVLoss(beta=1.0)(student, teacher)[0].backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_float32_traces_and_tensors_agree_on_what_bfloat16_loses() -> None:
    teacher = (1 + 1e-3 * random(1, 1, 1, 4, 64)).to(torch.bfloat16)
    loss, _ = MercatorKVLoss()(teacher, teacher)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    trace = KVTrace(teacher, teacher)
    assert MercatorKVLoss()(trace, trace)[0].item() == pytest.approx(0.0, abs=1e-6)
