"""Properties that hold for every eviction method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ragged import H, L, make_batch, make_sample, reasoning_columns

from kava.eviction import EVICTIONS, compress, register_eviction
from kava.trace import SCOPES, KVTrace, Segment

TARGET = 6
SIDES = ("left", "right", "both")


def run(
    trace: KVTrace, method: str, target_len: int = TARGET, **options: object
) -> tuple[KVTrace, torch.Tensor]:
    """`compress`, with the option that some methods cannot do without.

    For "positions" it is every other candidate; scores are numbers drawn by the columns' own.
    """
    if method == "positions":
        rows = [
            reasoning_columns(trace, sample)[::2][:target_len] for sample in range(trace.batch_size)
        ]
        rows = [row + [-1] * (target_len - len(row)) for row in rows]
        options["positions"] = torch.tensor(rows)
    if EVICTIONS[method].needs_scores:
        options["scores"] = scores_of(trace)
    return compress(trace, method, target_len, **options)


def scores_of(trace: KVTrace) -> torch.Tensor:
    """A score per column, the same wherever a sample stands; padding holds NaN."""
    ranks = trace.valid_BT().cumsum(dim=1)
    return (ranks * 37 % 23).float().masked_fill(~trace.valid_BT(), float("nan"))


def needed(method: str, trace: KVTrace) -> dict[str, torch.Tensor]:
    """The options that a method cannot do without, for one sample."""
    if method == "positions":
        return {"positions": torch.tensor([[3]])}
    return {"scores": scores_of(trace)} if EVICTIONS[method].needs_scores else {}


@pytest.fixture(params=EVICTIONS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("side", SIDES)
def test_kept_positions_are_valid_reasoning_in_ascending_order(method: str, side: str) -> None:
    trace, _ = make_batch(side)
    kept, indices = run(trace, method)
    M = kept.length
    assert indices.shape == (trace.batch_size, L, H, M)
    assert indices.dtype == torch.int64
    for sample in range(trace.batch_size):
        allowed = set(reasoning_columns(trace, sample))
        used = int(kept.mask[sample].sum())
        assert kept.mask[sample].tolist() == [True] * used + [False] * (M - used)
        if method not in ("full", "positions"):
            assert used == min(TARGET, len(allowed))
        for row in indices[sample].flatten(0, 1).tolist():
            assert set(row) <= allowed
            assert row[:used] == sorted(set(row[:used]))
            assert row[used:] == [row[used - 1]] * (M - used)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("side", SIDES)
def test_a_sample_keeps_the_same_positions_alone_and_in_a_batch(
    method: str, side: str, scope: str
) -> None:
    batch, offsets = make_batch(side)
    _, in_batch = run(batch, method, scope=scope)
    for sample, offset in enumerate(offsets):
        kept, alone = run(make_sample(sample), method, scope=scope)
        used = int(kept.mask.sum())
        assert torch.equal(in_batch[sample, :, :, :used] - offset, alone[0, :, :, :used])


def test_every_part_of_the_result_stands_at_the_indices(method: str) -> None:
    trace, _ = make_batch()
    kept, indices = run(trace, method)
    assert torch.equal(kept.keys, trace.keys.gather(3, indices[..., None].expand_as(kept.keys)))
    assert torch.equal(
        kept.values, trace.values.gather(3, indices[..., None].expand_as(kept.values))
    )
    wide = kept.positions if kept.positions.ndim == 4 else kept.positions[:, None, None]
    wanted = trace.positions[:, None, None].expand(-1, L, H, -1).gather(3, indices)
    assert torch.equal(wide.expand_as(wanted), wanted)
    assert (kept.segment_ids == Segment.REASONING).all()


@pytest.mark.parametrize("scope", SCOPES)
def test_a_choice_is_shared_as_widely_as_the_scope_says(method: str, scope: str) -> None:
    trace, _ = make_batch()
    kept, indices = run(trace, method, target_len=4, scope=scope)
    assert kept.scope == scope
    assert kept.positions.ndim == (2 if scope == "model" else 4)
    by_head = (indices != indices[:, :, :1]).any()
    by_layer = (indices != indices[:, :1]).any()
    scored = method in ("random", "rkv", "rkv_official", "h2o", "key_norm", "snapkv", "tova")
    assert bool(by_head) == (scored and scope == "head")
    assert bool(by_layer) == (scored and scope != "model")


def test_bfloat16_is_kept_and_scored_like_float32(method: str) -> None:
    rounded, _ = make_batch(dtype=torch.bfloat16)
    kept, indices = run(rounded, method)
    assert kept.keys.dtype == kept.values.dtype == torch.bfloat16
    exact_kept, exact = run(rounded.to(dtype=torch.float32), method)
    assert torch.equal(indices, exact)
    assert exact_kept.keys.dtype == torch.float32


def test_autocast_does_not_coarsen_the_scores(method: str) -> None:
    trace, _ = make_batch()
    _, exact = run(trace, method, scope="head")
    trace = replace(trace, keys=trace.keys.clone().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept, indices = run(trace, method, scope="head")
    assert torch.equal(indices, exact)
    assert kept.keys.requires_grad


def test_gradients_reach_the_kept_keys_and_values(method: str) -> None:
    trace = make_sample(0)
    trace.keys.requires_grad_()
    trace.values.requires_grad_()
    kept, indices = run(trace, method)
    (kept.keys.sum() + kept.values.sum()).backward()
    used = int(kept.mask.sum())
    expected = torch.zeros(1, L, H, trace.length).scatter_(3, indices[..., :used], 1.0)
    assert torch.equal(trace.keys.grad, expected[..., None].expand_as(trace.keys))
    assert torch.equal(trace.values.grad, expected[..., None].expand_as(trace.values))


@pytest.mark.parametrize("method", sorted(set(EVICTIONS) - {"rkv", "positions"}))
def test_without_segments_every_valid_position_is_a_candidate(method: str) -> None:
    trace = make_sample(2)
    bare = KVTrace(trace.keys, trace.values, trace.queries)
    _, indices = compress(bare, method, target_len=trace.length, **needed(method, bare))
    assert torch.equal(indices, torch.arange(trace.length).expand(1, L, H, -1))


@pytest.mark.parametrize("method", sorted(set(EVICTIONS) - {"full"}))
def test_a_target_beyond_the_input_keeps_all(method: str) -> None:
    trace = make_sample(2)
    kept, indices = run(trace, method, target_len=50)
    assert kept.length == 50
    assert int(kept.mask.sum()) == (2 if method == "positions" else 4)
    assert set(indices[0, 0, 0].tolist()) <= set(reasoning_columns(trace, 0))


def test_a_method_says_whether_it_needs_queries(method: str) -> None:
    trace = replace(make_batch()[0], queries=None)
    if EVICTIONS[method].needs_queries:
        with pytest.raises(ValueError, match="no queries"):
            run(trace, method)
    else:
        assert run(trace, method)[0].queries is None


def test_a_sample_without_candidates_is_named(method: str) -> None:
    trace, _ = make_batch()
    segments = trace.segment_ids.clone()
    segments[3][segments[3] == Segment.REASONING] = Segment.PROMPT
    broken = KVTrace(trace.keys, trace.values, trace.queries, trace.mask, segments)
    with pytest.raises(ValueError, match="sample 3 of the batch has no reasoning position"):
        run(broken, method)


@pytest.mark.parametrize("length", [2.5, True, "3"])
def test_a_target_is_a_whole_number(method: str, length: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        compress(make_sample(0), method, length, **needed(method, make_sample(0)))


def test_a_target_of_zero_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="target_len=0 keeps nothing"):
        compress(make_sample(0), method, 0, **needed(method, make_sample(0)))


def test_a_trace_compressed_per_head_is_not_compressed_again(method: str) -> None:
    kept, _ = compress(make_sample(0), "rkv", 5)
    with pytest.raises(ValueError, match="compressed before"):
        compress(kept, method, 3, **needed(method, kept))


def test_an_unknown_method_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"method='rvk' is unknown; choose from .*rkv_off"):
        compress(make_sample(0), "rvk")


def test_a_name_is_given_once(method: str) -> None:
    with pytest.raises(ValueError, match=f"an eviction '{method}' is registered already"):
        register_eviction(method)


def test_an_unknown_option_names_the_choices(method: str) -> None:
    with pytest.raises(ValueError, match=f"'lamda' is no option of '{method}'; choose from scope"):
        compress(make_sample(0), method, lamda=0.3)


def test_an_unknown_scope_names_the_choices(method: str) -> None:
    options = needed(method, make_sample(0))
    with pytest.raises(ValueError, match="scope='token' is unknown; choose from head, layer"):
        compress(make_sample(0), method, scope="token", **options)
