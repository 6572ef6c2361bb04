"""The shared space: losses against oracles, encoders, their fit, and the collapse guard."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kava import names
from kava.fuse import Offers
from kava.shared import (
    SHARED_LOSSES,
    Pairs,
    SharedSpace,
    SpaceReport,
    TraceEncoder,
    fit_space,
    space_report,
    space_verdict,
    too_little_variance,
)
from kava.shared.encoder import features_of
from kava.shared.losses import EPSILON, OFF_DIAGONAL
from kava.trace import KVTrace


def trace(B: int = 4, L: int = 2, H: int = 3, M: int = 5, D: int = 4, seed: int = 0) -> KVTrace:
    torch.manual_seed(seed)
    mask = torch.ones(B, M, dtype=torch.bool)
    mask[0, -2:] = False
    return KVTrace(torch.randn(B, L, H, M, D), torch.randn(B, L, H, M, D), mask=mask)


def points(N: int = 40, Z: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    ours = torch.randn(N, Z)
    return ours, ours @ torch.randn(Z, Z) + 0.3 * torch.randn(N, Z)


def test_features_are_keys_then_values_layer_by_layer() -> None:
    one = trace()
    found = features_of(one)
    for b in range(4):
        for m in range(5):
            expected = torch.cat([one.keys[b, :, :, m].flatten(), one.values[b, :, :, m].flatten()])
            if not one.mask[b, m]:
                expected = torch.zeros_like(expected)
            assert torch.equal(found[b, m], expected)


def test_an_encoder_standardises_by_block_and_maps_each_slot_alone() -> None:
    one = trace(B=64)
    encoder = TraceEncoder(2, 3, 4, dim=6)
    features = features_of(one)[one.mask] * 3 + 1
    encoder.standardise(features)
    plain = (features - encoder.mean) / encoder.std
    assert plain.mean(0).abs().max() < 1e-5
    for block in plain.split(12, dim=-1):
        assert block.square().mean().sqrt() == pytest.approx(1, abs=1e-4)
    points = encoder(one)
    assert points.shape == (64, 5, 6)
    alone = encoder(one.samples([3]).slice(2, 3))
    torch.testing.assert_close(points[3:4, 2:3], alone)
    constant = TraceEncoder(1, 1, 1, dim=2)
    constant.standardise(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    assert constant.std.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="3 heads and head dim 4 does not fit an encoder of 2, 2"):
        TraceEncoder(2, 2, 4, dim=2)(one)


def test_barlow_is_the_sum_over_the_cross_correlation() -> None:
    """Oracle: entry by entry."""
    ours, theirs = points()
    N, Z = ours.shape

    def standard(part: Tensor, z: int) -> Tensor:
        column = part[:, z] - part[:, z].mean()
        return column / (column.square().mean() + EPSILON).sqrt()

    total = 0.0
    for i in range(Z):
        for j in range(Z):
            entry = float((standard(ours, i) * standard(theirs, j)).sum()) / N
            total += (1 - entry) ** 2 if i == j else OFF_DIAGONAL * entry**2
    assert float(SHARED_LOSSES["barlow"](ours, theirs)) == pytest.approx(total / Z, rel=1e-4)


def test_cca_is_one_minus_the_mean_canonical_correlation() -> None:
    """Oracle: the eigenvalues of Σ₁⁻¹ Σ₁₂ Σ₂⁻¹ Σ₂₁, of which they are the roots."""
    ours, theirs = points(N=4000)
    a, b = (part.double() - part.double().mean(0) for part in (ours, theirs))
    s11, s22, s12 = a.mT @ a, b.mT @ b, a.mT @ b
    product = torch.linalg.solve(s11, s12) @ torch.linalg.solve(s22, s12.mT)
    correlations = torch.linalg.eigvals(product).real.sqrt()
    found = float(SHARED_LOSSES["cca"](ours, theirs))
    assert found == pytest.approx(1 - float(correlations.mean()), abs=0.03)
    # any invertible map of either side changes little
    turned = float(SHARED_LOSSES["cca"](ours @ torch.diag(torch.tensor([2.0, 1.0, 0.5])), theirs))
    assert turned == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize("name", SHARED_LOSSES)
def test_a_loss_is_least_of_equal_points_and_has_a_gradient(name: str) -> None:
    ours, theirs = points(Z=4)
    loss = SHARED_LOSSES[name]
    equal = float(loss(ours, ours.clone()))
    assert equal == pytest.approx(0, abs=0.02)
    assert float(loss(ours, ours[torch.randperm(len(ours))])) > equal + 0.2
    ours.requires_grad_()
    loss(ours, theirs).backward()
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()
    assert ours.grad.norm() > 0
    if name != "cca":
        one = torch.randn(4, 2, dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: loss(x, torch.ones_like(x).cumsum(0)), one)


@pytest.mark.parametrize("name", SHARED_LOSSES)
def test_few_and_equal_points_give_finite_losses_and_gradients(name: str) -> None:
    for same in (torch.ones(5, 3), torch.zeros(1, 3)):
        ours = same.clone().requires_grad_()
        loss = SHARED_LOSSES[name](ours, same.clone())
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(ours.grad).all()


def test_variance_is_lacking_below_one() -> None:
    torch.manual_seed(0)
    wide = torch.randn(500, 3) * torch.tensor([3.0, 2.0, 1.5])
    assert float(too_little_variance(wide)) == 0
    assert float(too_little_variance(torch.ones(9, 3))) == pytest.approx(1 - EPSILON**0.5)


def offers(traces: list[KVTrace], present: Tensor | None = None) -> Offers:
    B = traces[0].batch_size
    there = torch.ones(B, len(traces), dtype=torch.bool) if present is None else present
    return Offers(traces=tuple(traces), present_BN=there)


def test_teachers_are_mixed_in_the_space_by_their_weights() -> None:
    space = SharedSpace(2, (2, 3, 4), dim=6, loss="mse")
    traces = [trace(seed=0), trace(seed=1)]
    weights = torch.tensor([0.7, 0.3]).expand(4, 1, 1, 2)
    a, b = (g(one) for g, one in zip(space.teachers, traces))
    valid = traces[0].mask
    mixed = space.mixed(traces, offers(traces), weights)
    torch.testing.assert_close(mixed[valid], (0.7 * a + 0.3 * b)[valid])
    # a teacher that is not there leaves its weight to the other
    present = torch.tensor([[True, False]] * 4)
    alone = space.mixed(traces, offers(traces, present), weights)
    torch.testing.assert_close(alone[valid], a[valid])
    # weights by layer are averaged
    layers = torch.tensor([[1.0, 0.0], [0.4, 0.6]])[None, :, None].expand(4, 2, 1, 2)
    torch.testing.assert_close(space.mixed(traces, offers(traces), layers)[valid], mixed[valid])
    both = space.side_by_side([traces[0].slice(0, 2), traces[1].slice(0, 3)])
    torch.testing.assert_close(both, torch.cat([a[:, :2], b[:, :3]], dim=1))


@pytest.mark.parametrize("name", ["mse", "cosine"])
def test_a_loss_over_pairs_does_not_depend_on_the_batchs_split(name: str) -> None:
    space = SharedSpace(1, (2, 3, 4), dim=6, loss=name)
    ours, theirs = space.student(trace(seed=0)), space.student(trace(seed=1))
    mask = trace().mask
    whole = space.compare(ours, theirs, mask)
    parts = sum(
        space.compare(ours[b : b + 1], theirs[b : b + 1], mask[b : b + 1], mask.sum())
        for b in range(4)
    )
    torch.testing.assert_close(whole, parts)
    assert float(space.compare(ours, theirs, torch.zeros_like(mask)).detach()) == 0


def paired(seed: int = 0, noise: float = 0.1) -> tuple[Pairs, Pairs]:
    """Two teachers' features and the student's, all of the same hidden numbers."""
    B, R, latent = 96, 3, 4
    torch.manual_seed(7)  # the maps are those of every draw
    maps = [torch.randn(latent, width) for width in (16, 24, 16)]
    torch.manual_seed(seed)
    hidden = torch.randn(B, R, latent)
    noisy = [hidden @ one + noise * torch.randn(B, R, one.shape[1]) for one in maps]
    mask = torch.ones(B, R, dtype=torch.bool)
    mask[0, -1] = False
    return Pairs(noisy[0], noisy[2], mask), Pairs(noisy[1], noisy[2], mask)


def space_of(loss: str, seed: int = 0) -> SharedSpace:
    torch.manual_seed(seed)
    space = SharedSpace(2, (2, 1, 4), dim=4, loss=loss)
    space.teachers[1] = TraceEncoder(3, 1, 4, dim=4)
    return space.requires_grad_(False)


@pytest.mark.parametrize("loss", SHARED_LOSSES)
def test_a_fitted_space_tells_samples_apart(loss: str) -> None:
    space = space_of(loss)
    fit = fit_space(space, paired(), paired(seed=1), loss=loss, num_steps=300)
    assert (fit.num_positions, fit.num_held_out) == (2 * 287, 2 * 287)
    for report, said in zip(fit.reports, fit.verdicts()):
        assert said.startswith("the shared space tells samples apart: ")
        assert report.own < 0.5 * report.wrong_sample
        assert report.erank_teacher > 2.5
    assert not any(parameter.requires_grad for parameter in space.parameters())
    # both teachers' points of a sample are near to each other, though no loss compares them
    one, other = (g.encode(part.teacher)[1:] for g, part in zip(space.teachers, paired(seed=1)))
    compare = SHARED_LOSSES[loss]
    near = compare(one.flatten(0, 1), other.flatten(0, 1))
    far = compare(one.flatten(0, 1), other.roll(1, 0).flatten(0, 1))
    assert float(near) < 0.6 * float(far)


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_without_the_guard_it_collapses_and_is_named(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kava.shared.fit.LEARNING_RATE", 1e-2)
    options: dict[str, Any] = {"loss": loss, "num_steps": 600}
    pairs, held_out = paired(noise=1.0), paired(seed=1, noise=1.0)
    lost = fit_space(space_of(loss), pairs, held_out, guard_weight=0, **options)
    kept = fit_space(space_of(loss), pairs, held_out, **options)
    for one, other in zip(lost.reports, kept.reports):
        assert one.own < other.own  # the loss looks better
    assert all("the shared space has collapsed" in said for said in lost.verdicts())
    assert all("tells samples apart" in said for said in kept.verdicts())


def test_no_steps_only_standardise() -> None:
    space = space_of("mse")
    before = {name: part.clone() for name, part in space.named_parameters()}
    fit_space(space, paired(), paired(seed=1), loss="mse", num_steps=0)
    assert all(torch.equal(part, before[name]) for name, part in space.named_parameters())
    assert float(space.student.std[0]) != 1.0


def test_the_fit_is_the_same_for_the_same_seed() -> None:
    fits = [
        fit_space(space_of("barlow"), paired(), paired(seed=1), loss="barlow", num_steps=20, seed=s)
        for s in (0, 0, 1)
    ]
    assert fits[0] == fits[1]
    assert fits[0] != fits[2]
    one = tuple(part.samples(slice(0, 1)) for part in paired())
    with pytest.raises(ValueError, match="two samples or more"):
        fit_space(space_of("mse"), one, paired(), loss="mse")


def test_the_wrong_sample_is_the_one_before() -> None:
    """Oracle: pair by pair."""
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, 3, 4)
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[2, 2] = False
    report = space_report(ours, theirs, mask, SHARED_LOSSES["mse"])
    pairs = [(b, m) for b in range(5) for m in range(3) if mask[b, m] and mask[b - 1, m]]
    expected = [float((ours[b, m] - theirs[(b - 1) % 5, m]).square().mean()) for b, m in pairs]
    assert len(pairs) == 13
    assert report.wrong_sample == pytest.approx(sum(expected) / len(pairs), rel=1e-5)
    with pytest.raises(ValueError, match="one sample has no other"):
        space_report(ours[:1], theirs[:1], mask[:1], SHARED_LOSSES["mse"])
    with pytest.raises(ValueError, match="no two neighbouring samples"):
        space_report(ours, theirs, torch.zeros_like(mask), SHARED_LOSSES["mse"])


GOOD = SpaceReport(
    own=0.1, wrong_sample=0.5, spread_student=0.9, spread_teacher=0.9, erank_student=4,
    erank_teacher=4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the shared space tells samples apart: 0.1 from their own, 0.5 from another's"),
        ({"spread_teacher": 0.01}, "collapsed: all of the teachers' points are one (spread 0.01)"),
        ({"spread_student": float("nan")}, "collapsed: all of the student's points are one"),
        ({"erank_student": 1.2}, "collapsed: the student's points lie along 1.2 directions"),
        ({"wrong_sample": 0.1}, "teaches nothing: points are as near to another sample's as to"),
    ],
)
def test_a_report_is_one_sentence(changes: dict[str, Any], said: str) -> None:
    sentence = space_verdict(replace(GOOD, **changes))
    assert re.search(re.escape(said), sentence)
    assert "\n" not in sentence
    assert sentence == space_verdict(replace(GOOD, **changes).metrics())


def test_points_that_are_equal_or_on_a_line_are_seen() -> None:
    torch.manual_seed(0)
    mask = torch.ones(8, 3, dtype=torch.bool)
    line = torch.randn(8, 3, 1) * torch.ones(4) + 0.001 * torch.randn(8, 3, 4)
    report = space_report(line, line, mask, SHARED_LOSSES["mse"])
    assert "lie along 1" in space_verdict(report)
    same = torch.ones(8, 3, 4) + 0.001 * torch.randn(8, 3, 4)
    report = space_report(same, same, mask, SHARED_LOSSES["mse"])
    assert report.erank_teacher > 3  # noise fills all directions: the spread tells
    assert "points are one (spread 0.0011)" in space_verdict(report)


def test_the_names_of_the_flag_are_those_of_the_losses() -> None:
    assert list(names.SHARED_LOSSES) == list(SHARED_LOSSES)
