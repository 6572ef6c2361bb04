from __future__ import annotations

import json
from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fit.pairs import L_S, SHAPE, make_aligner, random_terms, trace_pairs
from kava.align import MapProjectionAligner
from kava.align.linear_maps import mix_layers
from kava.fit import statistics as fit_statistics
from kava.fit.aligner import AUTO_TOLERANCE, calibrate, ranks_up_to, sweep_ranks
from kava.fit.least_squares import fit_ridge, fit_scale
from kava.fit.maps import RIDGES, random_map
from kava.fit.moments import PairStatistics, r_squared
from kava.fit.report import Quality
from kava.fit.statistics import TracePair

MAP = random_terms(3, seed=3)


def rows(aligner: MapProjectionAligner, pairs: list[TracePair], name: str) -> tuple[Tensor, Tensor]:
    """Mixed teacher and student vectors [N, L, C] of all valid positions, by a slow loop."""
    theirs, ours = [], []
    for pair in pairs:
        mixed = mix_layers(getattr(pair.teacher, name), aligner.layer_rows)
        student = getattr(pair.student, name)
        for b, mask in enumerate(pair.mask):
            for t in mask.nonzero().flatten():
                theirs.append(mixed[b, :, :, t].flatten(1))
                ours.append(student[b, :, :, t].flatten(1))
    return torch.stack(theirs).double(), torch.stack(ours).double()


@pytest.mark.parametrize("direction", ["teacher_to_student", "student_to_teacher"])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "flat"},
        {"mode": "structured", "rank": 2},
        {"mode": "structured", "rank": 2, "share_dim_proj": False},
    ],
    ids=["full", "shared", "per head"],
)
def test_the_report_is_what_the_aligner_does(direction: str, options: dict[str, object]) -> None:
    aligner = make_aligner(direction=direction, **options)
    training = list(trace_pairs(12, MAP, queries=True))
    held_out = list(trace_pairs(4, MAP, seed=1, queries=True))
    report = calibrate(aligner, iter(training), iter(held_out))
    assert {fit.part for fit in report.layers} == {"keys", "values", "queries"}
    assert report.num_positions == sum(int(pair.mask.sum()) for pair in training)
    assert report.num_held_out == sum(int(pair.mask.sum()) for pair in held_out)
    assert report.num_parameters == sum(p.numel() for p in aligner.parameters())
    for name in ("keys", "values", "queries"):
        mapped, actual = [], []
        for pair in held_out:
            if direction == "teacher_to_student":
                result = getattr(aligner(*caches(pair.teacher)), name)
                target = getattr(pair.student, name)
            else:
                result = getattr(aligner.map_student(*caches(pair.student)), name)
                target = getattr(aligner(*caches(pair.teacher)), name)
            mapped.append(result.detach().permute(1, 0, 3, 2, 4)[:, pair.mask])
            actual.append(target.permute(1, 0, 3, 2, 4)[:, pair.mask])
        y, y_hat = torch.cat(actual, dim=1), torch.cat(mapped, dim=1)  # [L, N, H, D]
        centre = y.mean(1, keepdim=True)
        errors, totals = (y - y_hat).square().sum((1, 2, 3)), (y - centre).square().sum((1, 2, 3))
        cosine = cosine_similarity(y_hat - centre, y - centre, dim=3).mean((1, 2))
        fits = report.part(name)
        assert [fit.layer for fit in fits] == list(range(L_S))
        for layer, fit in enumerate(fits):
            expected = 1 - errors[layer] / totals[layer]
            assert fit.calibrated.r_squared == pytest.approx(float(expected), abs=1e-4)
            assert fit.calibrated.cosine == pytest.approx(float(cosine[layer]), abs=1e-4)


def caches(trace: object) -> tuple[Tensor, Tensor, Tensor]:
    return trace.keys, trace.values, trace.queries  # type: ignore[attr-defined]


def test_a_full_map_is_the_ridge_solution_of_the_best_strength_on_held_out_pairs() -> None:
    aligner = make_aligner(mode="flat")
    training, held_out = list(trace_pairs(12, MAP)), list(trace_pairs(4, MAP, seed=1))
    report = calibrate(aligner, training, held_out)
    seen, judged = (PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out) for _ in range(2))
    seen.update(*rows(aligner, training, "values"))
    judged.update(*rows(aligner, held_out, "values"))
    for layer, fit in enumerate(report.part("values")):
        scores = {ridge: r_squared(judged, *fit_ridge(seen, ridge))[layer] for ridge in RIDGES}
        assert fit.ridge == pytest.approx(max(scores, key=lambda ridge: float(scores[ridge])))
        weight, bias = fit_ridge(seen, fit.ridge)
        projector = aligner.projectors()["values"]
        torch.testing.assert_close(projector.weight[layer], weight[layer].float())
        torch.testing.assert_close(projector.bias[layer].flatten(), bias[layer].float())
        assert fit.full == fit.calibrated


def test_a_known_structured_map_is_recovered() -> None:
    weight = random_terms(2, seed=4)
    aligner = make_aligner(rank=2)
    pairs = trace_pairs(20, weight, noise=0.0)
    report = calibrate(aligner, pairs, trace_pairs(4, weight, noise=0.0, seed=1))
    torch.testing.assert_close(
        aligner.projectors()["keys"].dense(), weight.float(), rtol=1e-2, atol=1e-2
    )
    for fit in report.layers:
        assert fit.calibrated == pytest.approx((1.0, 1.0), abs=1e-3)
        assert abs(fit.wrong_sample.r_squared) < 0.2
        assert abs(fit.random.r_squared) < 0.4
    assert report.warnings() == []


def test_how_the_pairs_are_split_into_batches_does_not_matter() -> None:
    def split(pair: TracePair) -> list[TracePair]:
        return [
            TracePair(pair.teacher.samples(some), pair.student.samples(some), pair.mask[some])
            for some in (slice(0, 3), slice(3, 4))
        ]

    one, other = make_aligner(mode="flat"), make_aligner(mode="flat")
    training, held_out = list(trace_pairs(8, MAP)), list(trace_pairs(4, MAP, seed=1))
    first = calibrate(one, training, held_out, ridge=1e-3)
    second = calibrate(
        other, chain.from_iterable(map(split, training)), chain.from_iterable(map(split, held_out)),
        ridge=1e-3,
    )  # fmt: skip
    for name in ("keys", "values"):
        for a, b in zip(*(side.projectors()[name].parameters() for side in (one, other))):
            torch.testing.assert_close(a, b)
    for fit, same in zip(first.layers, second.layers):
        assert fit.calibrated == pytest.approx(same.calibrated)
        assert fit.random == pytest.approx(same.random)


def test_the_wrong_sample_is_the_one_before_at_the_same_place() -> None:
    shape = SHAPE._replace(num_heads_out=1, head_dim_out=1)
    collected = fit_statistics.FitStatistics(1, shape, torch.device("cpu"))
    seen = []

    def note(rows: fit_statistics.SampledPositions) -> None:
        seen.append(rows.y[0, :, 1].tolist())

    collected._sample = note  # type: ignore[method-assign]
    x = torch.zeros(1, 9, shape.dim_in)
    # samples of 4, 2 and 3 positions: 10.., 20.., 30..
    y = torch.tensor([10.0, 11, 12, 13, 20, 21, 30, 31, 32]).view(1, 9, 1)
    collected.update(x, y, torch.tensor([4, 2, 3]))
    assert seen[-1] == [30, 31, 32, 30, 10, 11, 20, 21, 20]
    collected.update(x[:, :5], torch.full((1, 5, 1), 40.0), torch.tensor([5]))
    assert seen[-1] == [30, 31, 32, 30, 31]


def test_one_sample_alone_has_no_other() -> None:
    pairs = trace_pairs(6, MAP, batch_size=1)
    with pytest.raises(ValueError, match="first batch holds one sample only"):
        calibrate(make_aligner(), pairs, trace_pairs(2, MAP))


def test_what_place_in_the_text_tells_is_the_wrong_samples_to_explain() -> None:
    """Caches that depend on the position alone: the map is no use, and the report says so."""

    def same_everywhere(seed: int, num_batches: int) -> list[TracePair]:
        generator = torch.Generator().manual_seed(7)
        theirs = torch.randn(1, 3, 3, 9, 4, generator=generator)
        ours = torch.randn(1, 2, 2, 9, 5, generator=generator)
        pairs = []
        for pair in trace_pairs(num_batches, MAP, seed=seed):
            made = [
                type(trace)(*(cache.expand_as(trace.keys) for _ in range(2)))
                for trace, cache in ((pair.teacher, theirs), (pair.student, ours))
            ]
            pairs.append(TracePair(*made, torch.ones_like(pair.mask)))
        return pairs

    aligner = make_aligner(mode="flat")
    report = calibrate(aligner, same_everywhere(0, 8), same_everywhere(1, 4))
    for fit in report.layers:
        assert fit.calibrated.r_squared > 0.9
        assert fit.wrong_sample == pytest.approx(fit.calibrated)
    keys, values = report.warnings()
    assert "keys of layer 0, 1: the map explains less than 0.05 more" in keys
    assert "values of layer 0, 1" in values
    assert keys in str(report)


def test_the_random_map_gets_its_best_scalars() -> None:
    aligner = make_aligner(rank=1)
    training, held_out = list(trace_pairs(12, MAP)), list(trace_pairs(4, MAP, seed=1))
    report = calibrate(aligner, training, held_out)
    seen, judged = (PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out) for _ in range(2))
    seen.update(*rows(aligner, training, "keys"))
    judged.update(*rows(aligner, held_out, "keys"))
    empty = fit_statistics.SampledPositions(torch.empty(0), torch.empty(0))
    random = random_map(fit_statistics.PairSet(seen, empty), aligner.projectors()["keys"], 1)
    explained = r_squared(judged, random.weight, random.bias)
    assert [fit.random.r_squared for fit in report.part("keys")] == pytest.approx(
        explained.tolist()
    )
    again = fit_scale(seen, random.weight)
    torch.testing.assert_close(again[0], random.weight)
    state = torch.get_rng_state()
    random_map(fit_statistics.PairSet(seen, empty), aligner.projectors()["keys"], 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_positions_are_thinned_evenly_and_their_number_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit_statistics, "SAMPLED_POSITIONS", 16)
    shape = SHAPE._replace(num_heads_out=1, head_dim_out=1)
    collected = fit_statistics.FitStatistics(1, shape, torch.device("cpu"))
    place = torch.arange(203.0).view(1, -1, 1)
    for some in place.split([5, 7, 1, 90, 30, 3, 67], dim=1):
        x = some.expand(1, -1, shape.dim_in)
        collected._sample(fit_statistics.SampledPositions(x, torch.cat([some, -some], dim=2)))
    kept = collected.own_sample().positions.y.flatten()
    assert len(kept) <= 16
    assert kept[0] == 0
    assert len(kept.diff().unique()) == 1
    assert kept[-1] + kept.diff()[0] > 202
    assert torch.equal(collected.wrong_sample().positions.y.flatten(), -kept)


def test_rank_auto_takes_the_smallest_that_loses_little() -> None:
    weight = random_terms(2, seed=4)
    aligner = make_aligner()
    report = calibrate(
        aligner, trace_pairs(20, weight), trace_pairs(6, weight, seed=1), rank="auto"
    )
    assert report.rank == 2
    assert [tried.rank for tried in report.ranks] == [1, 2]
    assert report.ranks[0].loss > AUTO_TOLERANCE >= report.ranks[1].loss
    for name in ("keys", "values"):
        projector = aligner.projectors()[name]
        assert projector.rank == projector.head_mix.shape[1] == 2
        assert report.ranks[1].r_squared[name] == pytest.approx(
            [fit.calibrated.r_squared for fit in report.part(name)]
        )
    keys = next(trace_pairs(1, weight)).teacher.keys
    aligned = aligner(keys, keys, keys)  # the maps of queries, which were not fitted, have room too
    assert aligned.queries is not None
    assert aligner.projectors()["queries"].rank == 2
    assert all(bool(part.isfinite().all()) for part in aligned)


def test_a_rank_can_be_asked_for() -> None:
    aligner = make_aligner(rank=1)
    report = calibrate(aligner, trace_pairs(12, MAP), trace_pairs(4, MAP, seed=1), rank=3)
    assert report.rank == 3
    assert aligner.projectors()["keys"].head_mix.shape[1] == 3
    assert report.num_parameters == sum(
        aligner.projectors()[name].num_layers
        * sum(p[0].numel() for p in aligner.projectors()[name].parameters())
        for name in ("keys", "values")
    )


def test_the_sweep_says_what_calibrating_each_rank_would() -> None:
    training, held_out = list(trace_pairs(12, MAP)), list(trace_pairs(4, MAP, seed=1))
    aligner = make_aligner(rank=1)
    before = [parameter.clone() for parameter in aligner.parameters()]
    sweep = sweep_ranks(aligner, training, held_out)
    assert [fit.rank for fit in sweep] == ranks_up_to(6) == [1, 2, 3, 4, 6]
    for old, new in zip(before, aligner.parameters()):
        assert torch.equal(old, new)
    for fit in sweep[::2]:
        report = calibrate(make_aligner(rank=fit.rank), training, held_out)
        assert fit.num_parameters == report.num_parameters
        for name in ("keys", "values"):
            assert fit.r_squared[name] == pytest.approx(
                [layer.calibrated.r_squared for layer in report.part(name)]
            )
            assert fit.full[name] == pytest.approx(
                [layer.full.r_squared for layer in report.part(name)]
            )
    assert sweep[-1].loss == pytest.approx(0.0, abs=1e-9)


def test_parameters_stay_the_same_objects_and_precision_and_frozen() -> None:
    aligner = make_aligner(rank=2).bfloat16().requires_grad_(False)
    before = list(aligner.parameters())
    calibrate(aligner, trace_pairs(8, MAP), trace_pairs(2, MAP, seed=1))
    assert all(old is new for old, new in zip(before, aligner.parameters()))
    calibrate(aligner, trace_pairs(8, MAP), trace_pairs(2, MAP, seed=1), rank=3)
    for parameter in aligner.parameters():
        assert parameter.dtype == torch.bfloat16
        assert not parameter.requires_grad


def test_the_report_as_text_and_as_json() -> None:
    aligner = make_aligner(rank=2)
    report = calibrate(aligner, trace_pairs(12, MAP), trace_pairs(4, MAP, seed=1))
    lines = str(report).splitlines()
    assert lines[0].startswith(
        "calibration, teacher to student: rank 2 of 6, shared dim maps; "
        f"{report.num_parameters:,} parameters"
    )
    table = lines[2 : 3 + 2 * L_S]
    assert len({len(line) for line in table}) == 1
    assert f"{report.layers[0].calibrated.r_squared:.3f}" in table[1]
    stored = json.loads(report.to_json())
    assert stored["rank"] == 2
    assert Quality(**stored["layers"][3]["full"]) == report.layers[3].full


def test_too_few_positions_are_refused_by_both_numbers() -> None:
    def some(aligner: MapProjectionAligner) -> str:
        pairs = list(trace_pairs(1, MAP, batch_size=2))
        for pair in pairs:
            pair.mask[:] = False
            pair.mask[:, :3] = True
        with pytest.raises(ValueError, match="calibration set has") as error:
            calibrate(aligner, pairs, trace_pairs(2, MAP))
        return str(error.value)

    message = some(make_aligner(mode="flat"))  # 12 inputs and a bias
    assert "6 positions, but each output of the map of keys has 13 unknowns" in message
    assert "raise --calibration_samples" in message
    # 3 · (3·2 + 4·5) + 10 parameters for 10 outputs
    assert "has 9 unknowns" in some(make_aligner(rank=3))


def test_what_cannot_be_calibrated_is_refused() -> None:
    pairs, held_out = list(trace_pairs(8, MAP)), list(trace_pairs(2, MAP))
    with pytest.raises(ValueError, match="has no valid positions"):
        calibrate(make_aligner(), [], held_out)
    with pytest.raises(ValueError, match="held-out set has no valid positions"):
        calibrate(make_aligner(), pairs, [])
    with pytest.raises(ValueError, match="calibration set has keys, values, queries, but the held"):
        calibrate(make_aligner(), trace_pairs(8, MAP, queries=True), held_out)
    with pytest.raises(ValueError, match="rank=3 does not fit an aligner of full matrices"):
        calibrate(make_aligner(mode="flat"), pairs, held_out, rank=3)
    with pytest.raises(ValueError, match="rank='full' must be a number"):
        calibrate(make_aligner(), pairs, held_out, rank="full")
    with pytest.raises(ValueError, match="full matrices have no ranks"):
        sweep_ranks(make_aligner(mode="flat"), pairs, held_out)
    shared = MapProjectionAligner(
        num_teacher_layers=3, num_student_layers=2, num_teacher_heads=3, num_student_heads=2,
        teacher_head_dim=4, student_head_dim=5,
    )  # fmt: skip
    with pytest.raises(ValueError, match="make it with per_layer=True"):
        calibrate(shared, pairs, held_out)
    with pytest.raises(
        ValueError, match=r"teacher's keys have shape \[4, 2, 2, 9, 5\].*4, 3, 3, 9"
    ):
        calibrate(make_aligner(), [pairs[0]._replace(teacher=pairs[0].student)], held_out)


def test_memory_does_not_depend_on_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of many batches has the size of what is kept of a few."""
    monkeypatch.setattr(fit_statistics, "SAMPLED_POSITIONS", 32)

    def size(num_batches: int) -> int:
        collected = fit_statistics.collect_statistics(
            make_aligner(), trace_pairs(num_batches, MAP)
        )["keys"]
        moments = sum(part.numel() for part in vars(collected.statistics).values())
        return moments + sum(part.numel() for rows in collected.sampled for part in rows)

    assert size(40) <= size(4) + 32 * L_S * (SHAPE.dim_in + 2 * SHAPE.dim_out)


def test_calibration_leaves_no_graph() -> None:
    aligner = make_aligner(rank=2)
    pairs = list(trace_pairs(8, MAP))
    for pair in pairs:
        pair.teacher.keys.requires_grad_()
    calibrate(aligner, pairs, trace_pairs(2, MAP, seed=1))
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in aligner.parameters())
