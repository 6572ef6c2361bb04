"""The loss of the hidden states before the answer."""

from __future__ import annotations

from statistics import fmean, pstdev

import pytest
import torch

from kava.losses import CODILoss, codi_loss, hidden_at


def pair(num_layers: int = 3, batch: int = 4, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, num_layers + 1, width)
    return (
        torch.randn(shape, generator=generator).requires_grad_(),
        (3 * torch.randn(shape, generator=generator)).requires_grad_(),
    )


def test_the_loss_is_its_formula() -> None:
    student, teacher = pair()
    terms = []
    for b in range(4):
        for layer in range(1, 4):
            s, t = student[b, layer].tolist(), teacher[b, layer].tolist()
            gaps = [abs(x - y) / pstdev(t) for x, y in zip(s, t)]
            terms.append(fmean(g * g / 2 if g < 1 else g - 0.5 for g in gaps))
    assert codi_loss(student, teacher).item() == pytest.approx(fmean(terms), rel=1e-5)


def test_only_the_student_gets_gradients_and_not_for_its_embedding() -> None:
    student, teacher = pair()
    codi_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert not student.grad[:, 0].any()
    assert student.grad[:, 1:].abs().sum(dim=-1).min() > 0


def test_the_embedding_is_left_out() -> None:
    student, teacher = pair()
    other = student.detach().clone()
    other[:, 0] += 100
    assert codi_loss(other, teacher) == codi_loss(student, teacher)


def test_micro_batches_with_the_global_count_add_up() -> None:
    student, teacher = pair()
    whole = codi_loss(student, teacher)
    added = codi_loss(student[:1], teacher[:1], torch.tensor(4)) + codi_loss(
        student[1:], teacher[1:], 4
    )
    torch.testing.assert_close(added, whole)
    torch.testing.assert_close(
        torch.autograd.grad(added, student)[0], torch.autograd.grad(whole, student)[0]
    )


def test_the_scale_of_a_layer_does_not_matter() -> None:
    student, teacher = pair()
    scales = torch.tensor([1.0, 0.01, 5.0, 300.0])[:, None]
    torch.testing.assert_close(
        codi_loss(student * scales, teacher * scales), codi_loss(student, teacher)
    )


def test_a_constant_teacher_is_compared_undivided() -> None:
    student, teacher = pair()
    flat = torch.full_like(teacher, 0.7)
    expected = torch.nn.functional.smooth_l1_loss(student[:, 1:], flat[:, 1:])
    torch.testing.assert_close(codi_loss(student, flat), expected)


def test_hidden_states_are_taken_at_each_samples_column() -> None:
    states = [torch.randn(3, 5, 4) for _ in range(3)]
    columns = torch.tensor([4, 0, 2])
    found = hidden_at(states, columns)
    for b, column in enumerate(columns.tolist()):
        for layer in range(3):
            assert torch.equal(found[b, layer], states[layer][b, column])


def test_padding_does_not_change_the_loss() -> None:
    states = [torch.randn(2, 5, 4) for _ in range(3)]
    _, teacher = pair(num_layers=2, batch=2, width=4)
    columns = torch.tensor([3, 4])
    padded = [torch.nn.functional.pad(s, (0, 0, 3, 2), value=float("nan")) for s in states]
    assert codi_loss(hidden_at(states, columns), teacher) == codi_loss(
        hidden_at(padded, columns + 3), teacher
    )


def test_layer_weights_choose_the_teachers_layers() -> None:
    student, _ = pair(num_layers=2)
    _, teacher = pair(num_layers=4)
    weights = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    mixed = torch.stack([teacher[:, 0], teacher[:, 2], (teacher[:, 3] + teacher[:, 4]) / 2], dim=1)
    torch.testing.assert_close(
        codi_loss(student, teacher, layer_weights=weights), codi_loss(student, mixed)
    )


def test_equal_widths_need_no_parameters() -> None:
    student, teacher = pair()
    loss_fn = CODILoss(6, 6)
    assert not list(loss_fn.parameters())
    assert loss_fn(student, teacher) == codi_loss(student, teacher)


def test_unequal_widths_project_the_student_into_the_teachers_space() -> None:
    student, _ = pair(width=6)
    _, teacher = pair(width=10)
    loss_fn = CODILoss(6, 10)
    assert [tuple(p.shape) for p in loss_fn.parameters()] == [(10, 6)]
    loss_fn(student, teacher).backward()
    assert all(p.grad is not None and p.grad.any() for p in loss_fn.parameters())
    assert student.grad is not None
    assert student.grad[:, 1:].any()
    assert teacher.grad is None


def test_bfloat16_is_compared_in_float32() -> None:
    student, teacher = (x.detach().to(torch.bfloat16) for x in pair())
    weights = torch.full((3, 3), 1 / 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = codi_loss(student, teacher, layer_weights=weights)
    assert loss.dtype == torch.float32
    exact = codi_loss(student.float(), teacher.float(), layer_weights=weights)
    torch.testing.assert_close(loss, exact)


def test_input_that_does_not_fit_is_refused() -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match=r"give layer_weights \[2, 3\]"):
        codi_loss(student[:, :3], teacher)
    with pytest.raises(ValueError, match=r"layer_weights must be \[3, 3\], got \(2, 3\)"):
        codi_loss(student, teacher, layer_weights=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"use CODILoss\(student_dim, teacher_dim\)"):
        codi_loss(student[..., :4], teacher)
    with pytest.raises(ValueError, match=r"must be \[B, L\+1, W\]"):
        codi_loss(student[0], teacher[0])
