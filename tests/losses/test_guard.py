"""The collapse guard: wrong sample, effective rank, report and verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kava.losses import (
    KVLoss,
    collapse_report,
    control_is_as_good,
    effective_rank,
    trace_effective_rank,
    verdict,
    wrong_sample,
)
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
    assert all(isinstance(value, float) for value in report.values())
    assert report["kv_wrong_sample"] > 5 * report["kv"]
    assert report["cos"] > 0.9 > report["cos_wrong_sample"]
    assert report["erank_student"] > 2
    assert not control_is_as_good(report)
    assert "COLLAPSE" not in verdict(report)


def test_a_student_that_knows_only_the_average_is_found_out(make_pair: MakePair) -> None:
    _, target = make_pair(lengths=(4, 4, 4))
    mean = target.keys.mean(dim=0, keepdim=True).expand_as(target.keys)
    report = collapse_report(KVTrace(mean, mean), target, KVLoss(norm="mse"))
    # The mean is equally far from every sample's cache on average, right or wrong.
    assert report["kv_wrong_sample"] == pytest.approx(report["kv"])
    assert control_is_as_good(report)
    assert "wrong sample is matched as well as the right one" in verdict(report)


def test_both_comparisons_use_the_same_positions(make_pair: MakePair) -> None:
    student, target = make_pair(lengths=(4, 2))
    far = student.keys.detach().clone()
    far[0, :, :, 2:] = 1e3
    report = collapse_report(replace(student, keys=far, mask=None), target, KVLoss())
    near = collapse_report(student, target, KVLoss())
    assert report == near


def test_a_collapsed_target_is_named(make_pair: MakePair) -> None:
    student, target = make_pair()
    constant = torch.ones_like(target.keys)
    report = collapse_report(student, KVTrace(constant, constant), KVLoss())
    assert report["erank_target"] == pytest.approx(1.0, abs=1e-5)
    assert "target itself has collapsed to an effective rank of 1.00" in verdict(report)


@pytest.mark.parametrize(
    ("wrong", "as_good"), [(0.9, True), (1.05, True), (1.06, False), (float("nan"), True)]
)
def test_the_verdict_turns_at_its_tolerance(wrong: float, as_good: bool) -> None:
    report = {
        "kv": 1.0,
        "kv_wrong_sample": wrong,
        "cos": 0.9,
        "cos_wrong_sample": 0.5,
        "erank_student": 5.0,
        "erank_target": 5.0,
    }
    assert control_is_as_good(report) == as_good
    assert ("COLLAPSE" in verdict(report)) == as_good
    assert ("not finite" in verdict(report)) == math.isnan(wrong)
    assert not control_is_as_good(report, tolerance=0.5) or math.isnan(wrong)


def test_a_report_leaves_no_graph(make_pair: MakePair) -> None:
    student, target = make_pair()
    collapse_report(student, target, KVLoss())
    assert student.keys.grad is None
