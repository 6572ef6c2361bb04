"""The collapse guard's evidence: wrong sample, effective rank, report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kava.losses import (
    CKALoss,
    CollapseReport,
    KVLoss,
    SlotLoss,
    build_kv_loss,
    collapse_report,
    effective_rank,
    trace_effective_rank,
    wrong_sample,
)
from kava.losses.guard import MAX_PARTS, parts_of
from kava.trace import KVTrace

from .conftest import MakePair


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_sample_gets_all_parts_of_another(make_pair: MakePair) -> None:
    _, target = make_pair()
    target = replace(
        target,
        positions=torch.arange(12).reshape(3, 4),
        segment_ids=torch.arange(3)[:, None, None, None].expand(3, 2, 2, 4),
    )
    wrong = wrong_sample(target)
    for b in range(3):
        other = (b - 1) % 3
        for name in ("keys", "values", "queries", "positions", "segment_ids"):
            assert torch.equal(getattr(wrong, name)[b], getattr(target, name)[other])
    expected = [[True, True, True, False], [True, False, False, False], [True, False, False, False]]
    assert wrong.valid_BT().tolist() == expected


@pytest.mark.parametrize("length", [2, 4, 6])
def test_the_first_sample_takes_the_one_before_it_as_far_as_its_own_goes(
    length: int, make_pair: MakePair
) -> None:
    _, target = make_pair(lengths=(4, 4, 4))
    before = KVTrace(random(1, 2, 2, length, target.head_dim), random(1, 2, 2, length, 5)[..., :5])
    before = replace(before, values=random(1, 2, 2, length, target.values.shape[-1], seed=1))
    target = KVTrace(target.keys, target.values)
    wrong = wrong_sample(target, before)
    shared = min(length, 4)
    assert wrong.keys.shape == target.keys.shape
    assert torch.equal(wrong.keys[0, ..., :shared, :], before.keys[0, ..., :shared, :])
    assert torch.equal(wrong.keys[1:], target.keys[:-1])
    assert wrong.valid_BT().sum(1).tolist() == [shared, 4, 4]
    assert torch.equal(wrong_sample(target, target.samples([2])).keys, wrong_sample(target).keys)


def test_without_a_mask_the_control_has_none(make_pair: MakePair) -> None:
    _, target = make_pair()
    assert wrong_sample(replace(target, mask=None)).mask is None


def test_a_batch_of_one_has_no_wrong_sample(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(3,))
    with pytest.raises(ValueError, match="a batch of 1 sample has no wrong sample"):
        wrong_sample(target)


@pytest.mark.parametrize(("rows", "features"), [(12, 5), (5, 12)])
def test_the_effective_rank_is_its_formula(rows: int, features: int) -> None:
    x = random(rows, features)
    singular = torch.linalg.svdvals(x.double())
    shares = (singular / singular.sum()).tolist()
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-9)
    assert effective_rank(1e-3 * x).item() == pytest.approx(expected, rel=1e-6)


def test_the_effective_rank_at_its_ends() -> None:
    one_direction = random(20, 1) * random(1, 8, seed=1)
    assert effective_rank(one_direction).item() == pytest.approx(1.0, abs=1e-5)
    assert effective_rank(torch.eye(8)[:5]).item() == pytest.approx(5.0)
    assert effective_rank(torch.zeros(4, 8)).item() == 0
    assert effective_rank(torch.cat([torch.eye(8), torch.zeros(9, 8)])).item() == pytest.approx(8)


def test_the_rank_of_a_trace_is_that_of_its_valid_rows(make_pair: MakePair) -> None:
    _, target = make_pair(num_heads=2)
    found = trace_effective_rank(
        replace(
            target,
            keys=target.keys.masked_fill(~target.valid_BT()[:, None, None, :, None], float("nan")),
        )
    )
    assert found.shape == (2, 2)
    for layer in range(2):
        for index, part in enumerate((target.keys, target.values)):
            rows = torch.stack(
                [
                    part[b, layer, :, t].flatten()
                    for b in range(3)
                    for t in range(4)
                    if target.valid_BT()[b, t]
                ]
            )
            assert found[layer, index].item() == pytest.approx(effective_rank(rows).item())


def test_heads_that_differ_but_never_change_are_one_direction() -> None:
    cache = random(1, 2, 4, 1, 6).expand(5, 2, 4, 3, 6)
    assert trace_effective_rank(KVTrace(cache, cache)).max().item() == pytest.approx(1.0, abs=1e-5)


def test_a_student_that_knows_its_sample_passes(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(4, 3, 4))
    noise = 0.1 * random(*target.keys.shape, seed=7)
    student = KVTrace(target.keys + noise, target.values + noise)
    report = collapse_report(student, target, KVLoss())
    assert all(isinstance(value, float) for value in report.metrics().values())
    assert report.kv_wrong_sample > 5 * report.kv
    assert report.kv_between == pytest.approx(report.kv_wrong_sample, rel=0.1)
    assert report.cos > 0.9 > report.cos_wrong_sample
    assert report.erank_student > 2
    assert report.untaught() == []
    assert report.metrics()["slots_taught"] == 1


def test_a_student_that_knows_only_the_average_is_found_out(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(4, 4, 4))
    mean = target.keys.mean(dim=0, keepdim=True).expand_as(target.keys)
    report = collapse_report(KVTrace(mean, mean), target, KVLoss(norm="mse"))
    # The mean is equally far from every sample's cache on average, right or wrong.
    assert report.kv_wrong_sample == pytest.approx(report.kv)
    assert len(report.untaught()) == len(report.slots) == 4
    assert report.metrics()["slots_taught"] == 0
    # Two random targets are apart by twice what each is from its mean.
    assert report.kv_between == pytest.approx(3 * report.kv, rel=0.5)


def test_slots_are_judged_one_by_one(make_pair: MakePair) -> None:
    """The first slot is matched, the others know only the average: the whole looks well."""
    _, target = make_pair(lengths=(4, 4, 4))
    mean = target.keys.mean(dim=0, keepdim=True).expand_as(target.keys).clone()
    mean[..., 0, :] = target.keys[..., 0, :]
    target = KVTrace(target.keys, target.keys)
    report = collapse_report(KVTrace(mean, mean), target, KVLoss(norm="mse"))
    assert report.kv_wrong_sample > 1.1 * report.kv
    assert [slot.first for slot in report.untaught()] == [1, 2, 3]
    assert report.metrics()["slots_taught"] == pytest.approx(0.25)
    for slot in report.slots:
        here = (trace.slice(slot.first, slot.last + 1) for trace in (KVTrace(mean, mean), target))
        assert slot.kv == pytest.approx(KVLoss(norm="mse")(*here)[0].item(), abs=1e-6)


@pytest.mark.parametrize("name", ["smooth_l1", "mercator"])
def test_the_mean_of_parts_of_a_batch_is_the_report_of_the_batch(
    name: str, make_pair: MakePair
) -> None:
    """Ragged samples in two and one, of other lengths; effective ranks are of a batch."""
    student, target = make_pair(lengths=(4, 2, 3))
    loss = build_kv_loss(name)
    whole = collapse_report(student, target, loss)
    first = (trace.samples([0, 1]) for trace in (student, target))
    last = (trace.samples([2]).slice(0, 3) for trace in (student, target))
    parts = [
        collapse_report(*first, loss, target.samples([2]), num_slots=4),
        collapse_report(*last, loss, target.samples([1]), num_slots=4),
    ]
    mean = CollapseReport.mean(parts)
    for key in ("kv", "kv_wrong_sample", "kv_between", "cos", "cos_wrong_sample"):
        assert getattr(mean, key) == pytest.approx(getattr(whole, key), rel=1e-5)
    for ours, theirs in zip(mean.slots, whole.slots, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_slot_that_nobody_uses_is_no_evidence(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(3, 3), num_slots=4)
    student = KVTrace(target.keys + 0.1, target.values + 0.1)
    report = collapse_report(student, target, KVLoss())
    assert report.slots[3] == SlotLoss(3, 3, 0.0, 0.0, 0)
    assert report.num_pairs == 6
    assert report.untaught() == []


def test_losses_that_are_zero_everywhere_tell_nothing_apart() -> None:
    same = KVTrace(torch.ones(3, 1, 1, 2, 4), torch.ones(3, 1, 1, 2, 4))
    report = collapse_report(same, same, KVLoss())
    assert report.kv == report.kv_between == 0
    assert len(report.untaught()) == 2


@pytest.mark.parametrize("num_slots", [1, 3, 8, 9, 24, 301])
def test_parts_cover_all_slots_in_order(num_slots: int) -> None:
    parts = parts_of(num_slots)
    assert len(parts) == min(num_slots, MAX_PARTS)
    assert [m for start, stop in parts for m in range(start, stop)] == list(range(num_slots))


def test_both_comparisons_use_the_same_positions(make_pair: MakePair) -> None:
    student, target = make_pair(lengths=(4, 2))
    far = student.keys.detach().clone()
    far[0, :, :, 2:] = 1e3
    report = collapse_report(replace(student, keys=far, mask=None), target, KVLoss())
    near = collapse_report(student, target, KVLoss())
    assert report == near


def test_a_collapsed_target_has_the_rank_of_one_vector(make_pair: MakePair) -> None:
    student, target = make_pair()
    constant = torch.ones_like(target.keys)
    report = collapse_report(student, KVTrace(constant, constant), KVLoss())
    assert report.erank_target == pytest.approx(1.0, abs=1e-5)
    assert report.kv_between == 0


def test_cka_judges_too(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(2,) * 40)
    turned = KVTrace(target.keys.flip(-1), -3 * target.values)
    report = collapse_report(turned, target, CKALoss(debiased=True))
    assert report.kv == pytest.approx(0, abs=1e-4)
    assert report.kv_wrong_sample > 0.5
    assert report.untaught() == []


def test_reports_of_batches_are_averaged() -> None:
    def report(x: float, pairs: int = 1) -> CollapseReport:
        return CollapseReport(
            kv=x,
            kv_wrong_sample=2 * x,
            kv_between=3 * x,
            cos=x,
            cos_wrong_sample=x,
            erank_student=x,
            erank_target=x,
            slots=(SlotLoss(0, 0, x, 4 * x, pairs), SlotLoss(1, 2, x, x, 2 * pairs)),
        )

    mean = CollapseReport.mean([report(1.0), report(3.0)])
    assert mean == report(2.0, pairs=2)
    assert CollapseReport.mean([report(1.0, pairs=3), report(3.0)]) == report(1.5, pairs=4)
    assert CollapseReport.mean([report(0.0, pairs=0)]) == report(0.0, pairs=0)
    assert [slot.first for slot in mean.untaught()] == [1]
    assert mean.metrics()["slots_taught"] == pytest.approx(1 / 3)
    assert "slots" not in mean.metrics()


def test_a_report_leaves_no_graph(make_pair: MakePair) -> None:
    student, target = make_pair()
    collapse_report(student, target, KVLoss())
    assert student.keys.grad is None
