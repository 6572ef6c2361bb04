"""Every fusion: convex weights, one teacher alone, teachers that are missing, and slow oracles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kava.fuse import (
    FUSIONS,
    Fusion,
    LayerRouters,
    Offers,
    agreement,
    build_fusion,
    mix,
    renormalise,
    shares_of_slots,
)
from kava.names import FUSION_NAMES
from kava.trace import KVTrace

B, L, H, M, D, N = 3, 2, 2, 4, 5, 3


def trace(seed: int, length: int = M) -> KVTrace:
    drawn = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(B, L, H, length, D, generator=drawn) for _ in range(2))
    return KVTrace(keys, values)


def offers(num_teachers: int = N, **changes: Any) -> Offers:
    drawn = torch.Generator().manual_seed(99)
    given = Offers(
        traces=tuple(trace(n) for n in range(num_teachers)),
        present_BN=torch.ones(B, num_teachers, dtype=torch.bool),
        student=trace(50),
        query_BLC=torch.randn(B, L, H * D, generator=drawn),
        answer_BN=torch.randn(B, num_teachers, generator=drawn) * 3,
        text_BN=torch.rand(B, num_teachers, generator=drawn) * 3,
        chosen_B=torch.tensor([2, 0, 1])[:B] % num_teachers,
    )
    return replace(given, **changes)


def fusion(name: str, num_teachers: int = N, **options: Any) -> Fusion:
    torch.manual_seed(0)
    router = LayerRouters(L, H * D, num_teachers)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return build_fusion(name, router=router.eval(), **options)


MIXING = sorted(set(FUSIONS) - {"union"})


def test_the_lists_of_names_agree() -> None:
    assert set(FUSION_NAMES.shipped) == set(FUSIONS)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_weights_are_convex(name: str) -> None:
    weights = fusion(name).weigh(offers())
    assert weights.shape[0] == B
    assert weights.shape[-1] == N
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("name", MIXING)
def test_the_target_is_the_weighted_mean(name: str) -> None:
    given = offers()
    fused = fusion(name)(given)
    weights = fused.weights.expand(B, L, M, N)
    for part in ("keys", "values"):
        expected = torch.zeros(B, L, H, M, D)
        for b in range(B):
            for layer in range(L):
                for m in range(M):
                    for n in range(N):
                        one = getattr(given.traces[n], part)[b, layer, :, m]
                        expected[b, layer, :, m] += weights[b, layer, m, n] * one
        torch.testing.assert_close(getattr(fused.trace, part), expected)


@pytest.mark.parametrize("name", MIXING)
def test_copies_of_one_teacher_are_that_teacher(name: str) -> None:
    one = trace(7)
    fused = fusion(name)(offers(traces=(one, one, one)))
    torch.testing.assert_close(fused.trace.keys, one.keys, atol=1e-6, rtol=0)
    torch.testing.assert_close(fused.trace.values, one.values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alone", range(N))
def test_one_hot_weights_return_that_teacher_bit_for_bit(alone: int) -> None:
    weights = tuple(float(n == alone) for n in range(N))
    given = offers()
    fused = build_fusion("fixed", weights=weights)(given)
    assert torch.equal(fused.trace.keys, given.traces[alone].keys)
    assert torch.equal(fused.trace.values, given.traces[alone].values)
    assert fused.trace.valid_BT().all()


@pytest.mark.parametrize("name", MIXING)
def test_a_missing_teacher_counts_for_nothing(name: str) -> None:
    present = torch.ones(B, N, dtype=torch.bool)
    present[0, 1] = False
    given = offers(present_BN=present)
    broken = given.traces[1].keys.clone()
    broken[0] = float("nan")
    damaged = replace(given, traces=(given.traces[0], replace(given.traces[1], keys=broken),
                                     given.traces[2]))  # fmt: skip
    fused = fusion(name)(given)
    if name not in ("similarity", "disagreement"):  # both look at all that is offered
        assert torch.equal(fused.trace.keys, fusion(name)(damaged).trace.keys)
    weights = renormalise(fused.weights, given.valid_BMN()[:, None])
    assert (weights[0, ..., 1] == 0).all()


def test_a_sample_without_its_teacher_has_no_target() -> None:
    present = torch.ones(B, N, dtype=torch.bool)
    present[0, 2] = False  # the teacher that is named for sample 0
    fused = fusion("oracle")(offers(present_BN=present))
    assert fused.trace.valid_BT().tolist() == [[False] * M, [True] * M, [True] * M]


def test_slots_that_one_teacher_lacks_are_taken_from_the_others() -> None:
    given = offers(2)
    mask = torch.ones(B, M, dtype=torch.bool)
    mask[1, 3] = False
    short = replace(given.traces[0], mask=mask)
    fused = build_fusion("fixed", weights=(0.5, 0.5))(
        replace(given, traces=(short, given.traces[1]))
    )
    torch.testing.assert_close(fused.trace.keys[1, :, :, 3], given.traces[1].keys[1, :, :, 3])
    mean = (given.traces[0].keys + given.traces[1].keys) / 2
    torch.testing.assert_close(fused.trace.keys[1, :, :, 2], mean[1, :, :, 2])
    assert fused.trace.valid_BT().all()


def test_whole_rows_are_renormalised_bit_for_bit() -> None:
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    found = renormalise(weights, valid)
    assert torch.equal(found[0], weights[0])
    torch.testing.assert_close(found[1], torch.tensor([7 / 9, 2 / 9, 0.0]))


@pytest.mark.parametrize("name", ["learnable", "mlp", "gate", "attention", "per layer"])
def test_gradients_reach_the_router(name: str) -> None:
    kind = name if name in ("mlp", "gate", "attention") else "mlp"
    router = LayerRouters(L, H * D, N, per_layer=name == "per layer", router_type=kind)
    found = build_fusion("learnable", router=router)(offers())
    found.trace.keys.square().sum().backward()
    last = list(router.parameters())[-1].grad
    assert last is not None
    assert last.abs().sum() > 0


def test_a_policy_draws_in_training_and_takes_the_best_in_evaluation() -> None:
    chosen = fusion("learnable", learning="policy")
    given = offers(chosen_B=None)
    best = chosen.choose(given)
    assert best is not None
    assert torch.equal(best, chosen.shares(given)[:, 0].argmax(-1))  # type: ignore[attr-defined]
    torch.manual_seed(0)
    drawn = [chosen.choose(replace(given, explore=True)) for _ in range(100)]
    assert len({tuple(one.tolist()) for one in drawn if one is not None}) > 1


@pytest.mark.parametrize(
    ("name", "known"),
    [("oracle", [2, 0, 1]), ("fixed", None), ("confidence", None), ("union", None)],
)
def test_what_is_known_before_a_teacher_reads(name: str, known: list[int] | None) -> None:
    given = offers(traces=())
    chosen = fusion(name).choose(given)
    assert known == (None if chosen is None else chosen.tolist())
    alone = build_fusion("fixed", weights=(0.0, 1.0, 0.0)).choose(given)
    assert alone is not None
    assert alone.tolist() == [1] * B


def test_confidence_takes_the_teacher_that_knows_the_answer() -> None:
    answers = torch.tensor([[-0.1, -8.0], [-9.0, -0.2], [-3.0, -3.0]])
    weights = build_fusion("confidence").weigh(offers(2, answer_BN=answers))[:, 0, 0]
    torch.testing.assert_close(weights, torch.softmax(answers, -1))
    text = -answers
    hard = build_fusion("min_ce").weigh(offers(2, text_BN=text))[:, 0, 0]
    assert hard.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("method", ["mean", "cls", "max", "kmeans"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_similarity_prefers_the_teacher_that_is_like_the_student(
    method: str, similarity: str, per_layer: bool
) -> None:
    student = trace(50)
    flat = KVTrace(
        *(part.mean(3, keepdim=True).expand_as(part) for part in (student.keys, student.values))
    )
    other = KVTrace(-flat.keys, -flat.values)
    chosen = build_fusion(
        "similarity", prototype=method, similarity=similarity, temperature=0.05, per_layer=per_layer
    )
    weights = chosen.weigh(offers(2, traces=(other, flat), student=student))
    assert weights.shape == (B, L if per_layer else 1, 1, 2)
    assert (weights[..., 1] > weights[..., 0]).all()


def test_union_lays_the_teachers_side_by_side() -> None:
    parts = (trace(0, 1), trace(1, 3))
    present = torch.tensor([[True, True], [True, False], [True, True]])
    fused = build_fusion("union")(offers(2, traces=parts, present_BN=present))
    assert torch.equal(fused.trace.keys, torch.cat([part.keys for part in parts], 3))
    assert fused.trace.valid_BT().tolist() == [[True] * 4, [True] + [False] * 3, [True] * 4]
    assert fused.weights[0, 0].argmax(-1).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("slots", "weights", "expected"),
    [
        (6, (0.5, 0.5), (3, 3)),
        (5, (0.5, 0.5), (3, 2)),
        (4, (0.7, 0.2, 0.1), (2, 1, 1)),
        (3, (1 / 3,) * 3, (1, 1, 1)),
        (10, (0.9, 0.1), (9, 1)),
        (10, (1.0, 0.0), (9, 1)),
    ],
)
def test_slots_are_shared_out_by_weight(
    slots: int, weights: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert shares_of_slots(slots, weights) == expected


def slow_agreement(given: Offers) -> Tensor:
    assert given.student is not None
    found = torch.zeros(B, L, M)
    for b in range(B):
        for layer in range(L):
            for m in range(M):
                pulls = [
                    torch.cat([
                        (one.keys - given.student.keys)[b, layer, :, m].flatten(),
                        (one.values - given.student.values)[b, layer, :, m].flatten(),
                    ])
                    for one in given.traces
                ]  # fmt: skip
                pairs = [
                    torch.cosine_similarity(pulls[i], pulls[j], dim=0)
                    for i in range(len(pulls))
                    for j in range(i)
                ]
                found[b, layer, m] = torch.stack(pairs).mean()
    return found


def test_agreement_is_the_mean_cosine_of_all_pairs_of_pulls() -> None:
    given = offers()
    cosine, several = agreement(given)
    torch.testing.assert_close(cosine, slow_agreement(given))
    assert several.all()


def test_teachers_that_pull_apart_are_dropped_or_weigh_less() -> None:
    student = trace(50)
    pull = trace(1)

    def at(sign: float) -> KVTrace:
        return KVTrace(student.keys + sign * pull.keys, student.values + sign * pull.values)

    against = offers(2, traces=(at(1), at(-1)), student=student)
    along = offers(2, traces=(at(1), at(2)), student=student)
    drop, weigh = (build_fusion("disagreement", disagreement=kind) for kind in ("drop", "weigh"))
    assert not drop(against).trace.valid_BT().any()
    assert drop(along).trace.valid_BT().all()
    for given, expected in ((against, 0.0), (along, 1.0)):
        found = weigh(given).position_weights
        assert found is not None
        torch.testing.assert_close(found, torch.full((B, M), expected), atol=1e-6, rtol=0)
    lonely = replace(against, present_BN=torch.tensor([[True, False]] * B))
    assert drop(lonely).trace.valid_BT().all()


BAD = [
    (lambda: build_fusion("average"), "fusion='average' is unknown; choose from"),
    (lambda: build_fusion("fixed", weights=(0.5, 0.4)).weigh(offers(2)), "sum to 0.9"),
    (lambda: build_fusion("fixed", weights=(0.5, 0.5)).weigh(offers(3)), "there are 3 teachers"),
    (lambda: build_fusion("fixed", weights=(1.5, -0.5)).weigh(offers(2)), "must be finite and 0"),
    (lambda: build_fusion("confidence", temperature=0.0), "temperature=0.0 must be"),
    (lambda: build_fusion("disagreement", disagreement="hide"), "choose from drop, weigh"),
    (lambda: build_fusion("similarity", prototype="median"), "'median' is unknown"),
    (lambda: build_fusion("oracle").weigh(offers(chosen_B=None)), "needs Offers.chosen_B"),
    (lambda: shares_of_slots(1, (0.5, 0.5)), "1 slots cannot hold positions of 2 teachers"),
    (lambda: mix(offers(), torch.ones(B, 1, 1, 2)), "one for each teacher"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "named"), BAD)
def test_what_does_not_fit_is_refused(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
