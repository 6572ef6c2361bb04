"""Each scored method against a slow loop written from its formula."""

from __future__ import annotations

import math

import pytest
import torch
from ragged import G, H, L, make_batch, reasoning_columns

from kava.compress import RKVEviction, RKVOfficialEviction, compress
from kava.compress.base import find_candidates
from kava.compress.h2o import H2OEviction
from kava.compress.redundancy import mean_cosine
from kava.compress.snapkv import SnapKVEviction
from kava.compress.tova import TOVAEviction
from kava.trace import KVTrace, Segment


def softmax(numbers: list[float]) -> list[float]:
    powers = [math.exp(number - max(numbers)) for number in numbers]
    return [power / sum(powers) for power in powers]


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def heads(trace: KVTrace):
    """Sample, layer, head, its keys [T, D], its group's queries [G, T, D], in float64."""
    for b in range(trace.batch_size):
        for layer in range(L):
            for h in range(H):
                group = trace.queries[b, layer, h * G : (h + 1) * G].double()
                yield b, layer, h, trace.keys[b, layer, h].double(), group


def rkv_scores(trace: KVTrace, lam: float, scaling: float) -> dict[tuple[int, ...], list[float]]:
    scores = {}
    for b, layer, h, keys, group in heads(trace):
        columns = reasoning_columns(trace, b)
        answers = (trace.segment_ids[b] == Segment.ANSWER).nonzero()[:, 0].tolist()
        importance = [0.0] * len(columns)
        for answer in answers:
            rows = [
                softmax([float(queries[answer] @ keys[i]) * scaling for i in columns])
                for queries in group
            ]
            for slot in range(len(columns)):
                importance[slot] += max(row[slot] for row in rows) / len(answers)
        means = [
            sum(cosine(keys[i], keys[j]) for j in columns if j != i) / len(columns) for i in columns
        ]
        spread = softmax([-mean for mean in means])
        scores[b, layer, h] = [lam * i + (1 - lam) * r for i, r in zip(importance, spread)]
    return scores


def rkv_official_scores(
    trace: KVTrace, lam: float, window: int, kernel: int, threshold: float
) -> dict[tuple[int, ...], list[float]]:
    scores = {}
    for b, layer, h, keys, group in heads(trace):
        columns = reasoning_columns(trace, b)
        before, newest = columns[:-window], columns[-window:]
        attention = [0.0] * len(before)
        for row in newest if before else []:
            logits = [
                max(float(queries[row] @ keys[i]) for queries in group) / math.sqrt(keys.shape[1])
                for i in before
            ]
            attention = [a + p / len(newest) for a, p in zip(attention, softmax(logits))]
        half = kernel // 2
        pooled = [max(attention[max(0, i - half) : i + half + 1]) for i in range(len(attention))]
        share = [[cosine(keys[i], keys[j]) if i != j else 0.0 for j in columns] for i in columns]
        for row in share:
            alike = [slot for slot, number in enumerate(row) if number > threshold]
            row[alike[-1] if alike else 0] = 0.0
        means = [sum(row[slot] for row in share) / len(columns) for slot in range(len(columns))]
        redundancy = softmax(means)
        scores[b, layer, h] = [lam * a - (1 - lam) * r for a, r in zip(pooled, redundancy)] + [
            math.inf
        ] * len(newest)
    return scores


def h2o_scores(trace: KVTrace) -> dict[tuple[int, ...], list[float]]:
    scores = {}
    for b, layer, h, keys, group in heads(trace):
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        received = dict.fromkeys(valid, 0.0)
        for queries in group:
            for row in valid:
                seen = [i for i in valid if i <= row]
                logits = [float(queries[row] @ keys[i]) / math.sqrt(keys.shape[1]) for i in seen]
                for column, probability in zip(seen, softmax(logits)):
                    if column < row:
                        received[column] += probability / G
        scores[b, layer, h] = [received[i] for i in reasoning_columns(trace, b)]
    return scores


def attention_of(
    keys: torch.Tensor, group: torch.Tensor, row: int, valid: list[int], scaling: float
) -> dict[int, float]:
    """The attention of one row to every valid position up to itself, mean over the group."""
    seen = [i for i in valid if i <= row]
    mean = dict.fromkeys(valid, 0.0)
    for queries in group:
        logits = [float(queries[row] @ keys[i]) * scaling for i in seen]
        for column, probability in zip(seen, softmax(logits)):
            mean[column] += probability / len(group)
    return mean


def snapkv_scores(
    trace: KVTrace, window: int, kernel: int, scaling: float
) -> dict[tuple[int, ...], list[float]]:
    scores = {}
    for b, layer, h, keys, group in heads(trace):
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        columns = reasoning_columns(trace, b)
        before, newest = columns[:-window], columns[-window:]
        received = dict.fromkeys(before, 0.0)
        for row in newest if before else []:
            attention = attention_of(keys, group, row, valid, scaling)
            received = {column: received[column] + attention[column] for column in before}
        half = kernel // 2
        pooled = [
            sum(received.get(neighbour, 0.0) for neighbour in range(i - half, i + half + 1))
            / kernel
            for i in before
        ]
        scores[b, layer, h] = pooled + [math.inf] * len(newest)
    return scores


def tova_scores(trace: KVTrace, scaling: float) -> dict[tuple[int, ...], list[float]]:
    scores = {}
    for b, layer, h, keys, group in heads(trace):
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        columns = reasoning_columns(trace, b)
        attention = attention_of(keys, group, columns[-1], valid, scaling)
        scores[b, layer, h] = [attention[i] for i in columns[:-1]] + [math.inf]
    return scores


def check(
    trace: KVTrace, scores: torch.Tensor, expected: dict[tuple[int, ...], list[float]]
) -> None:
    for (b, layer, h), wanted in expected.items():
        got = scores[b, layer, h, reasoning_columns(trace, b)]
        torch.testing.assert_close(got, torch.tensor(wanted), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize(("lam", "scaling"), [(0.0, None), (0.1, None), (0.6, 0.9), (1.0, None)])
def test_rkv_equals_its_formula(side: str, lam: float, scaling: float | None) -> None:
    trace, _ = make_batch(side)
    scores = RKVEviction(lam=lam, scaling=scaling).score(trace, find_candidates(trace))
    check(trace, scores, rkv_scores(trace, lam, scaling or trace.head_dim**-0.5))


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize(
    ("lam", "window", "kernel", "threshold"),
    [(0.07, 3, 7, 0.5), (0.5, 1, 3, 0.2), (1.0, 4, 1, 0.0), (0.0, 8, 7, 0.9)],
)
def test_rkv_official_equals_its_formula(
    side: str, lam: float, window: int, kernel: int, threshold: float
) -> None:
    trace, _ = make_batch(side)
    eviction = RKVOfficialEviction(
        lam=lam, window_size=window, kernel_size=kernel, threshold=threshold
    )
    scores = eviction.score(trace, find_candidates(trace))
    check(trace, scores, rkv_official_scores(trace, lam, window, kernel, threshold))


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_h2o_equals_its_formula(side: str) -> None:
    trace, _ = make_batch(side)
    check(trace, H2OEviction().score(trace, find_candidates(trace)), h2o_scores(trace))


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize(
    ("window", "kernel", "scaling"), [(3, 5, None), (1, 1, 0.9), (4, 3, None), (12, 5, None)]
)
def test_snapkv_equals_its_formula(
    side: str, window: int, kernel: int, scaling: float | None
) -> None:
    trace, _ = make_batch(side)
    eviction = SnapKVEviction(window_size=window, kernel_size=kernel, scaling=scaling)
    scores = eviction.score(trace, find_candidates(trace))
    check(trace, scores, snapkv_scores(trace, window, kernel, scaling or trace.head_dim**-0.5))


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("scaling", [None, 0.9])
def test_tova_equals_its_formula(side: str, scaling: float | None) -> None:
    trace, _ = make_batch(side)
    scores = TOVAEviction(scaling=scaling).score(trace, find_candidates(trace))
    check(trace, scores, tova_scores(trace, scaling or trace.head_dim**-0.5))


@pytest.mark.parametrize("method", ["rkv", "rkv_official", "h2o", "snapkv", "tova"])
def test_cutting_into_blocks_and_chunks_changes_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, _ = make_batch()
    _, whole = compress(trace, method, 6, scope="head")
    monkeypatch.setattr("kava.compress.heads.CPU_NUMBERS", 1)
    monkeypatch.setattr("kava.compress.h2o.ROWS", 3)
    monkeypatch.setattr("kava.compress.rkv_official.ROWS", 5)
    monkeypatch.setattr("kava.compress.rkv_official.TILE", 4)
    _, pieces = compress(trace, method, 6, scope="head")
    assert torch.equal(whole, pieces)


@pytest.mark.parametrize("T", [2, 63, 700])
def test_the_mean_cosine_equals_the_mean_of_the_whole_matrix(T: int) -> None:
    generator = torch.Generator().manual_seed(T)
    keys = torch.randn(4, T, 64, generator=generator)
    keys += 3 * torch.randn(4, 1, 64, generator=generator)
    units = torch.nn.functional.normalize(keys.double(), dim=-1)
    pairs = units @ units.transpose(1, 2)
    pairs.diagonal(dim1=1, dim2=2).zero_()
    got = mean_cosine(keys, torch.ones(4, T, dtype=torch.bool)).double()
    wanted = pairs.mean(dim=-1)
    assert (got - wanted).norm() <= 5e-7 * wanted.norm()
    shares, wanted_shares = (-got).softmax(-1), (-wanted).softmax(-1)
    assert ((shares - wanted_shares).abs() / wanted_shares).max() <= 5e-7


def test_a_key_alone_is_like_no_other() -> None:
    mean = mean_cosine(torch.randn(4, 1, 64), torch.ones(4, 1, dtype=torch.bool))
    torch.testing.assert_close(mean, torch.zeros(4, 1), rtol=0, atol=5e-7)


def test_a_zero_key_is_like_no_other() -> None:
    keys = torch.zeros(1, 3, 4)
    keys[0, 1:] = 1.0
    mean = mean_cosine(keys, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(mean, torch.tensor([[0.0, 1 / 3, 1 / 3]]))
