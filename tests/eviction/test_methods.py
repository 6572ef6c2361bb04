"""What sets each method apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ragged import H, L, make_batch, make_sample, reasoning_columns

from kava.eviction import EVICTIONS, build_eviction, compress
from kava.eviction.base import ascending_indices, top_mask
from kava.trace import KVTrace, Segment


def ranks_kept(trace: KVTrace, method: str, target_len: int, **options: object) -> list[list[int]]:
    """The ranks among each sample's candidates of what layer 0, head 0 keeps."""
    kept, indices = compress(trace, method, target_len, **options)
    rows = []
    for sample in range(trace.batch_size):
        columns = reasoning_columns(trace, sample)
        row = indices[sample, 0, 0, kept.mask[sample]].tolist()
        rows.append([columns.index(column) for column in row])
    return rows


def test_right_crop_keeps_the_end() -> None:
    trace, _ = make_batch()
    expected = [[10, 11, 12, 13], [5, 6, 7, 8], [0, 1, 2, 3], [8, 9, 10, 11], [8, 9, 10, 11]]
    assert ranks_kept(trace, "right_crop", 4) == expected


def test_full_is_as_long_as_the_longest_sample() -> None:
    trace, _ = make_batch()
    assert ranks_kept(trace, "full", 3) == [list(range(n)) for n in (14, 9, 4, 12, 12)]


@pytest.mark.parametrize(
    ("target_len", "expected"),
    [(1, [13]), (2, [0, 13]), (3, [0, 7, 13]), (5, [0, 3, 7, 10, 13]), (14, list(range(14)))],
)
def test_uniform_is_even_with_both_ends(target_len: int, expected: list[int]) -> None:
    assert ranks_kept(make_sample(0), "uniform", target_len) == [expected]


@pytest.mark.parametrize("target_len", range(1, 40))
def test_uniform_never_repeats_a_position(target_len: int) -> None:
    for row, columns in zip(ranks_kept(make_batch()[0], "uniform", target_len), (14, 9, 4, 12, 12)):
        assert len(set(row)) == min(target_len, columns)


@pytest.mark.parametrize(
    ("place", "expected"), [(0.0, [0, 1, 2, 3]), (0.5, [5, 6, 7, 8]), (1.0, [10, 11, 12, 13])]
)
def test_a_window_stands_where_it_is_placed(place: float, expected: list[int]) -> None:
    assert ranks_kept(make_sample(0), "window", 4, place=place) == [expected]


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_the_default_window_is_the_right_crop(side: str) -> None:
    trace, _ = make_batch(side)
    assert ranks_kept(trace, "window", 5) == ranks_kept(trace, "right_crop", 5)


@pytest.mark.parametrize(
    ("target_len", "options", "expected"),
    [
        (1, {}, [13]),
        (2, {}, [0, 13]),
        (5, {}, [0, 1, 11, 12, 13]),
        (10, {}, [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]),
        (4, {"num_sinks": 1}, [0, 11, 12, 13]),
        (3, {"num_sinks": 3}, [0, 1, 2]),
        (3, {"num_sinks": 0}, [11, 12, 13]),
    ],
)
def test_streaming_llm_keeps_sinks_and_the_end(
    target_len: int, options: dict[str, int], expected: list[int]
) -> None:
    assert ranks_kept(make_sample(0), "streaming_llm", target_len, **options) == [expected]


def test_key_norm_keeps_the_shortest_keys_rotated_or_not() -> None:
    trace = make_sample(0)
    columns = reasoning_columns(trace, 0)
    _, indices = compress(trace, "key_norm", 5)
    wanted = trace.keys[0, :, :, columns].norm(dim=-1).topk(5, largest=False).indices
    assert torch.equal(indices[0], wanted.sort().values + columns[0])
    turned = replace(trace, keys=trace.keys.roll(1, dims=-1).neg())
    assert torch.equal(compress(turned, "key_norm", 5)[1], indices)


@pytest.mark.parametrize("target_len", [2, 6, 9, 12])
def test_snapkv_always_keeps_its_window(target_len: int) -> None:
    window = 8 if target_len > 8 else target_len // 2
    trace, _ = make_batch()
    kept, indices = compress(trace, "snapkv", target_len)
    for sample in range(trace.batch_size):
        newest = reasoning_columns(trace, sample)[-window:]
        for row in indices[sample].flatten(0, 1)[:, kept.mask[sample]].tolist():
            assert row[-len(newest) :] == newest


def test_snapkv_brings_the_neighbours_of_what_is_looked_at() -> None:
    trace = make_sample(0)
    columns = reasoning_columns(trace, 0)
    keys, queries = torch.zeros_like(trace.keys), torch.zeros_like(trace.queries)
    keys[..., columns[4], 0] = 30.0
    queries[..., 0] = 30.0
    trace = replace(trace, keys=keys, queries=queries)
    assert ranks_kept(trace, "snapkv", 4, window_size=1, kernel_size=3) == [[3, 4, 5, 13]]
    # without pooling the others are level, and the earlier ones win
    assert ranks_kept(trace, "snapkv", 4, window_size=1, kernel_size=1) == [[0, 1, 4, 13]]


def test_tova_keeps_the_end_and_what_it_looks_at() -> None:
    trace = make_sample(0)
    columns = reasoning_columns(trace, 0)
    keys, queries = torch.zeros_like(trace.keys), torch.zeros_like(trace.queries)
    keys[..., columns[4], 0] = keys[..., columns[7], 1] = 30.0
    queries[..., columns[-1], 0] = 30.0
    queries[..., columns[-2], 1] = 90.0  # an earlier one, which is not asked
    trace = replace(trace, keys=keys, queries=queries)
    assert ranks_kept(trace, "tova", 2) == [[4, 13]]


def test_given_scores_decide_and_what_padding_holds_does_not() -> None:
    trace, offsets = make_batch()
    scores = torch.full((trace.batch_size, trace.length), float("nan"))
    for sample, offset in enumerate(offsets):
        columns = reasoning_columns(trace, sample)
        scores[sample, columns] = torch.arange(len(columns)).float() % 5
        scores[sample, offset] = 100.0  # the prompt's
    rows = ranks_kept(trace, "knockout", 2, scores=scores)
    assert rows == [[4, 9], [3, 4], [2, 3], [4, 9], [4, 9]]
    assert rows == ranks_kept(trace, "knockout_gradient", 2, scores=scores.double())


def test_random_repeats_itself_and_follows_its_seed() -> None:
    trace, _ = make_batch()
    draws = [ranks_kept(trace, "random", 4, seed=seed) for seed in (0, 0, 1, 2**62, -5)]
    assert draws[0] == draws[1]
    assert len({str(draw) for draw in draws}) == 4


def test_random_tells_samples_of_equal_lengths_apart() -> None:
    trace, _ = make_batch()
    differ = [
        rows[3] != rows[4]
        for rows in (ranks_kept(trace, "random", 4, seed=seed) for seed in range(10))
    ]
    assert sum(differ) >= 8


def test_random_draws_by_name_whatever_the_content_and_the_order() -> None:
    trace, _ = make_batch()
    names = ["a", "b", "c", "d", 17]
    rows = ranks_kept(trace, "random", 4, sample_ids=names)
    order = [4, 2, 0, 3, 1]
    shuffled = replace(trace.samples(order), values=torch.randn_like(trace.values))
    again = ranks_kept(shuffled, "random", 4, sample_ids=[names[i] for i in order])
    assert again == [rows[i] for i in order]


def test_random_names_need_not_survive_rounding() -> None:
    trace, _ = make_batch()
    noisy = replace(trace, values=trace.values * (1 + 1e-7 * torch.randn_like(trace.values)))
    assert ranks_kept(trace, "random", 4) == ranks_kept(noisy, "random", 4)


def test_random_refuses_a_wrong_number_of_names() -> None:
    with pytest.raises(ValueError, match="sample_ids names 2 samples, the batch has 1"):
        compress(make_sample(0), "random", sample_ids=["a", "b"])


def test_random_keeps_every_candidate_equally_often() -> None:
    counts = torch.zeros(14)
    for seed in range(1000):
        for rank in ranks_kept(make_sample(0), "random", 7, seed=seed)[0]:
            counts[rank] += 1
    # 500 ± 5 standard deviations of a fair binomial.
    assert counts.min() > 420
    assert counts.max() < 580


def test_rkv_at_lambda_one_keeps_what_the_answer_attends_to() -> None:
    trace = make_sample(0)
    columns = reasoning_columns(trace, 0)
    answers = (trace.segment_ids[0] == Segment.ANSWER).nonzero()[:, 0]
    queries = trace.queries.unflatten(2, (H, -1))[0, :, :, :, answers]
    logits = queries @ trace.keys[0, :, :, None, columns].transpose(-1, -2)
    attention = (logits / trace.head_dim**0.5).softmax(-1).amax(dim=2).mean(dim=-2)
    wanted = attention.topk(5).indices.sort().values + columns[0]
    _, indices = compress(trace, "rkv", 5, lam=1.0)
    assert torch.equal(indices[0], wanted)


@pytest.mark.parametrize("method", ["rkv", "rkv_official"])
def test_towards_lambda_zero_duplicate_keys_are_dropped(method: str) -> None:
    trace = make_sample(0)
    columns = reasoning_columns(trace, 0)
    keys = torch.linalg.qr(torch.randn(L, H, 32, 32)).Q[None, :, :, : trace.length]
    # Ranks 2 to 5 hold one key; no other pair is alike.
    keys[..., columns[2:6], :] = keys[..., columns[2:3], :].clone()
    trace = KVTrace(
        keys, keys, torch.randn(1, L, H, trace.length, 32), trace.mask, trace.segment_ids
    )
    options = {"window_size": 1} if method == "rkv_official" else {}
    _, indices = compress(trace, method, 10, lam=1e-4, **options)
    kept = (indices - columns[0])[0].flatten(0, 1)
    repeated = ((kept >= 2) & (kept <= 5)).sum(dim=-1)
    # rkv_official exempts the newest of a group of duplicates.
    assert (repeated <= (1 if method == "rkv_official" else 0)).all()


def test_rkv_at_lambda_zero_asks_for_no_queries() -> None:
    trace = make_sample(0)
    bare = KVTrace(trace.keys, trace.values, segment_ids=trace.segment_ids)
    _, indices = compress(bare, "rkv", 5, lam=0.0)
    assert torch.equal(indices, compress(trace, "rkv", 5, lam=0.0)[1])


@pytest.mark.parametrize("target_len", [2, 6, 9, 12])
def test_rkv_official_always_keeps_its_window(target_len: int) -> None:
    window = 8 if target_len > 8 else target_len // 2
    trace, _ = make_batch()
    kept, indices = compress(trace, "rkv_official", target_len)
    for sample in range(trace.batch_size):
        newest = reasoning_columns(trace, sample)[-window:]
        for row in indices[sample].flatten(0, 1)[:, kept.mask[sample]].tolist():
            assert row[-len(newest) :] == newest
    if target_len == 6:
        assert not torch.equal(indices, compress(trace, "right_crop", target_len)[1])


def test_rkv_official_keeps_one_position_when_asked_for_one() -> None:
    assert ranks_kept(make_sample(0), "rkv_official", 1) == [[13]]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rkv", {"lam": 1.5}, "lam=1.5 must lie between 0"),
        ("rkv_official", {"lam": -0.1}, "lam=-0.1 must lie between 0"),
        ("rkv_official", {"threshold": 2.0}, "threshold=2.0 must be a cosine"),
        ("rkv_official", {"kernel_size": 4}, "kernel_size=4 must be odd"),
        ("rkv_official", {"window_size": 0}, "window_size=0 must be at least 1"),
        ("rkv_official", {"window_size": 8}, "window_size=8 leaves no room in target_len=8"),
        ("positions", {}, "method 'positions' needs the option 'positions'"),
        ("knockout", {}, "method 'knockout' needs the option 'scores'"),
        (
            "knockout",
            {"scores": torch.zeros(3)},
            r"scores must be floating numbers of shape \[B, T",
        ),
        ("knockout", {"scores": torch.zeros(1, 3)}, r"scores \(1, 3\) do not fit .*\[1, 19\]"),
        ("window", {"place": 1.5}, "place=1.5 must lie between 0"),
        ("streaming_llm", {"num_sinks": -1}, "num_sinks=-1 must not be negative"),
        ("streaming_llm", {"num_sinks": 9}, "num_sinks=9 is more than target_len=8"),
        ("snapkv", {"kernel_size": 4}, "kernel_size=4 must be odd"),
        ("snapkv", {"window_size": 0}, "window_size=0 must be at least 1"),
        ("snapkv", {"window_size": 8}, "window_size=8 leaves no room in target_len=8"),
    ],
)
def test_options_out_of_range_are_refused(
    method: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compress(make_sample(0), method, 8, **options)


@pytest.mark.parametrize("method", ["rkv", "rkv_official", "h2o", "snapkv", "tova"])
def test_missing_queries_are_named_with_their_mend(method: str) -> None:
    trace = make_sample(0)
    with pytest.raises(ValueError, match=f"{method} scores by .* no queries.*queries=True"):
        compress(replace(trace, queries=None), method)


def test_rkv_names_what_it_lacks_of_the_answer() -> None:
    trace, _ = make_batch()
    with pytest.raises(ValueError, match="no segment_ids"):
        compress(replace(trace, segment_ids=None), "rkv")
    segments = trace.segment_ids.clone()
    segments[1][segments[1] == Segment.ANSWER] = Segment.PROMPT
    with pytest.raises(ValueError, match="sample 1 of the batch has no answer position"):
        compress(replace(trace, segment_ids=segments), "rkv")


@pytest.mark.parametrize("method", ["rkv", "rkv_official", "h2o"])
def test_nan_at_a_valid_position_is_named_by_its_sample(method: str) -> None:
    trace, _ = make_batch()
    keys = trace.keys.clone()
    keys[3, 0, 0, reasoning_columns(trace, 3)[0]] = float("nan")
    with pytest.raises(ValueError, match="sample 3 of the batch has scores that are not a number"):
        compress(replace(trace, keys=keys), method, 4)


def test_positions_are_kept_as_named_in_ascending_order() -> None:
    trace, _ = make_batch()
    named = [[7, 5, 9], [6, -1, -1], [-1, 8, 5], [5, 6, 16], [16, -1, 5]]
    kept, indices = compress(trace, "positions", 3, positions=torch.tensor(named))
    assert indices[:, 1, 2].tolist() == [[5, 7, 9], [6, 6, 6], [5, 8, 8], [5, 6, 16], [5, 16, 16]]
    assert kept.mask.sum(dim=1).tolist() == [3, 1, 2, 3, 2]


@pytest.mark.parametrize("method", ["random", "rkv", "rkv_official"])
def test_positions_replay_another_methods_choice(method: str) -> None:
    trace, _ = make_batch()
    kept, indices = compress(trace, method, 4, scope="head")
    again, replayed = compress(trace, "positions", 4, scope="head", positions=indices)
    assert torch.equal(indices, replayed)
    assert torch.equal(kept.keys, again.keys)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([5, 5, 6], r"positions\[1, …, 0\] = 5 is named twice"),
        ([5, 40, 6], r"positions\[1, …, 1\] = 40 is no candidate"),
        ([5, 6, 0], r"positions\[1, …, 2\] = 0 is no candidate"),
        ([5, 6, -2], r"positions\[1, …, 2\] = -2 is no candidate"),
        ([-1, -1, -1], "positions name 0 to 0 positions of sample 1"),
        ([5, 6, 7], "positions name 3 to 3 positions of sample 1.*target_len=2"),
    ],
)
def test_wrong_positions_are_named(row: list[int], message: str) -> None:
    trace, _ = make_batch()
    positions = torch.tensor([[5, 6, -1], row, [5, 6, -1], [5, 6, -1], [5, 6, -1]])
    with pytest.raises(ValueError, match=message):
        compress(trace, "positions", 2 if row == [5, 6, 7] else 3, positions=positions)


def test_a_position_one_past_the_end_is_refused() -> None:
    trace = make_sample(0)
    bare = KVTrace(trace.keys, trace.values)
    with pytest.raises(ValueError, match=f"= {trace.length} is no candidate"):
        compress(bare, "positions", 1, positions=torch.tensor([[trace.length]]))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.zeros(5, 2), r"integers of shape \[B, M\]"),
        (torch.zeros(2, 2).long(), r"positions \(2, 2\) do not fit the trace: expected \[5, M\]"),
        (torch.zeros(5, L, H, 2).long(), "pass scope='head'"),
    ],
)
def test_positions_of_a_wrong_shape_are_refused(positions: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compress(make_batch()[0], "positions", 3, positions=positions)


def test_positions_must_be_as_many_in_every_head() -> None:
    trace = make_sample(0)
    positions = torch.tensor([5, 6, 7]).expand(1, L, H, 3).clone()
    positions[0, 1, 1, 2] = -1
    with pytest.raises(ValueError, match="name 2 to 3 positions of sample 0"):
        compress(trace, "positions", 3, scope="head", positions=positions)


def test_ties_go_to_the_earlier_position() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 9.0]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    assert top_mask(scores, mask, 3).tolist() == [[True, True, False, True, False, False]]


def test_ascending_indices_repeat_the_last_one() -> None:
    mask = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert ascending_indices(mask, 3).tolist() == [[1, 3, 3], [0, 0, 0]]


def test_defaults_are_the_published_ones() -> None:
    assert {name: eviction.scope for name, eviction in EVICTIONS.items()} == {
        "full": "model",
        "h2o": "model",
        "key_norm": "head",
        "knockout": "model",
        "knockout_gradient": "model",
        "positions": "model",
        "random": "model",
        "right_crop": "model",
        "rkv": "head",
        "rkv_official": "head",
        "snapkv": "head",
        "streaming_llm": "model",
        "tova": "layer",
        "uniform": "model",
        "window": "model",
    }
    assert build_eviction("snapkv").kernel_size == 5
    assert build_eviction("rkv").lam == 0.1
    official = build_eviction("rkv_official")
    assert (official.lam, official.kernel_size, official.threshold) == (0.07, 7, 0.5)
