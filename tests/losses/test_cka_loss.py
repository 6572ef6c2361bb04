"""The CKA loss: its formula, what it does not see, few positions, batches, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kava.align.layers.cka import linear_cka
from kava.losses import CKALoss
from kava.trace import KVTrace

from .conftest import MakePair

LENGTHS = (4, 1, 3)
estimators = pytest.mark.parametrize("debiased", [False, True])


def oracle(loss: CKALoss, ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> float:
    """The mean over layers of 1 − CKA, rows collected one by one."""
    distances = []
    for layer in range(ours.shape[1]):
        x, y = (
            torch.stack([t[b, layer, :, m].flatten() for b, m in mask.nonzero().tolist()])
            for t in (ours, theirs)
        )
        distances.append(1 - linear_cka(x, y, loss.debiased).item())
    return sum(distances) / len(distances)


@estimators
def test_the_loss_is_its_formula(debiased: bool, make_pair: MakePair) -> None:
    student, target = make_pair(LENGTHS)
    loss_fn = CKALoss(debiased=debiased, key_weight=2.0, value_weight=0.5)
    loss, metrics = loss_fn(student, target)
    keys = oracle(loss_fn, student.keys, target.keys, target.valid_BT())
    values = oracle(loss_fn, student.values, target.values, target.valid_BT())
    assert loss.item() == pytest.approx((2 * keys + 0.5 * values) / 2, abs=1e-5)
    assert metrics["cka_k"].item() == pytest.approx(1 - keys, abs=1e-5)
    assert metrics["cka_v"].item() == pytest.approx(1 - values, abs=1e-5)


@estimators
def test_another_basis_scale_and_offset_cost_nothing(debiased: bool, make_pair: MakePair) -> None:
    _, target = make_pair((4, 4, 4))
    turn = torch.linalg.qr(torch.randn(10, 10)).Q

    def turned(part: torch.Tensor) -> torch.Tensor:
        wide = part.detach().permute(0, 1, 3, 2, 4).flatten(3)
        return 7 * (wide @ turn).unflatten(3, (2, 5)).permute(0, 1, 3, 2, 4) + 2

    loss, _ = CKALoss(debiased=debiased)(
        KVTrace(turned(target.keys), turned(target.values)), target
    )
    assert abs(loss.item()) < 1e-5


def test_steps_down_its_gradient_bring_the_student_to_tell_positions_apart_as_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    target = KVTrace(*torch.randn(2, 6, 2, 2, 3, 4, generator=generator))
    parts = torch.randn(2, 6, 2, 2, 3, 4, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([parts], lr=0.05)
    first = CKALoss()(KVTrace(*parts), target)[0].item()
    for _ in range(150):
        optimizer.zero_grad()
        CKALoss()(KVTrace(*parts), target)[0].backward()
        optimizer.step()
    assert CKALoss()(KVTrace(*parts), target)[0].item() < 0.05 < 0.3 < first


def test_the_student_gets_gradients_and_the_target_none_unless_asked(make_pair: MakePair) -> None:
    for detach in (True, False):
        student, target = make_pair(LENGTHS)
        loss, metrics = CKALoss(detach_target=detach)(student, target)
        loss.backward()
        assert student.keys.grad is not None
        assert student.values.grad is not None
        assert (target.keys.grad is None) == detach
        assert not metrics["cka_k"].requires_grad


@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_padding_changes_neither_loss_nor_gradient(garbage: float, make_pair: MakePair) -> None:
    student, target = make_pair((3, 3, 3), num_slots=3)
    loss, _ = CKALoss()(student, replace(target, mask=None))
    expected = torch.autograd.grad(loss, [student.keys, student.values])

    def padded(trace: KVTrace) -> KVTrace:
        pad = torch.nn.functional.pad
        keys, values = (pad(x, (0, 0, 1, 2), value=garbage) for x in (trace.keys, trace.values))
        return KVTrace(keys, values)

    mask = torch.tensor([[False, True, True, True, False, False]] * 3)
    same, _ = CKALoss()(padded(student), replace(padded(target), mask=mask))
    torch.testing.assert_close(same, loss)
    for ours, theirs in zip(torch.autograd.grad(same, [student.keys, student.values]), expected):
        torch.testing.assert_close(ours, theirs)


def test_micro_batches_are_averaged_by_their_share_of_positions(make_pair: MakePair) -> None:
    """A statistic of a batch: the split changes it, but not what it is a mean of."""
    student, target = make_pair((4, 4, 2))
    parts = [slice(0, 1), slice(1, 3)]
    alone = [CKALoss()(student.samples(part), target.samples(part))[0] for part in parts]
    shared = [CKALoss()(student.samples(part), target.samples(part), 10)[0] for part in parts]
    torch.testing.assert_close(shared[0] + shared[1], 0.4 * alone[0] + 0.6 * alone[1])
    whole, _ = CKALoss()(student, target)
    assert abs(whole.item() - (shared[0] + shared[1]).item()) > 0.01


@pytest.mark.parametrize(("debiased", "lengths"), [(False, (1,)), (True, (3,)), (False, (0, 0))])
def test_too_few_positions_have_no_cka_and_add_nothing(
    debiased: bool, lengths: tuple[int, ...], make_pair: MakePair
) -> None:
    student, target = make_pair(lengths, num_slots=4)
    loss, metrics = CKALoss(debiased=debiased)(student, target)
    assert loss.item() == metrics["cka_k"].item() == 0


def test_layer_weights_weigh_the_layers(make_pair: MakePair) -> None:
    student, target = make_pair(LENGTHS)
    first, second = (CKALoss()(student.layers([i]), target.layers([i]))[0] for i in (0, 1))
    loss, _ = CKALoss()(student, target, layer_weights=[1.0, 3.0])
    torch.testing.assert_close(loss, (first + 3 * second) / 4)
    with pytest.raises(ValueError, match="layer_weights has 1 weights for 2 layers"):
        CKALoss()(student, target, layer_weights=[1.0])


def test_bfloat16_is_compared_in_float32(make_pair: MakePair) -> None:
    student, target = make_pair(LENGTHS)
    half = student.to(dtype=torch.bfloat16), target.to(dtype=torch.bfloat16)
    exact, _ = CKALoss()(*(trace.to(dtype=torch.float32) for trace in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = CKALoss()(*half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


def test_bad_input_is_refused(make_pair: MakePair) -> None:
    with pytest.raises(ValueError, match=r"key_weight and value_weight .* not all 0"):
        CKALoss(key_weight=0.0, value_weight=0.0)
    student, target = make_pair(LENGTHS)
    with pytest.raises(ValueError, match="rotated=True and target keys rotated=False"):
        CKALoss()(student, replace(target, rotated=False))
