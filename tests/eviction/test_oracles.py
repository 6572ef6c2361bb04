"""Each scored method against a slow loop written from its formula."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from ragged import G, H, L, make_batch, reasoning_columns

from kava.attention import AttentionForm
from kava.eviction import EVICTIONS, RKVEviction, RKVOfficialEviction, build_eviction, compress
from kava.eviction.base import find_candidates
from kava.eviction.h2o import H2OEviction
from kava.eviction.redundancy import mean_cosine
from kava.eviction.snapkv import SnapKVEviction
from kava.eviction.tova import TOVAEviction
from kava.trace import KVTrace, Segment

Scores = dict[tuple[int, ...], list[float]]

FORMS = {
    "scaling": AttentionForm(scaling=(0.9, 0.1)),
    "soft cap": AttentionForm(scaling=(0.4, 0.4), softcap=(0.8, None)),
    "window": AttentionForm(scaling=(0.4, 0.4), window=(None, 3)),
    "chunk": AttentionForm(scaling=(0.4, 0.4), chunk=(5, None)),
    "sinks": AttentionForm(
        scaling=(0.4, 0.4), sinks=torch.linspace(-1.0, 2.0, L * H * G).view(L, H * G)
    ),
}


def softmax(numbers: list[float]) -> list[float]:
    """Of logits, of which −inf gets nothing."""
    most = max(numbers, default=0.0)
    if most == -math.inf:
        return [0.0] * len(numbers)
    powers = [math.exp(number - most) for number in numbers]
    return [power / sum(powers) for power in powers]


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


class Head(NamedTuple):
    """A key/value head of one sample's layer, in float64, and how it attends."""

    place: tuple[int, int, int]
    keys: torch.Tensor
    group: torch.Tensor
    positions: list[int]
    scaling: float
    softcap: float | None
    window: int | None
    chunk: int | None
    sinks: list[float]
    """Of each query head of the group; empty where there are none."""

    def logits(self, g: int, row: int, columns: list[int]) -> list[float]:
        """Those of one query head's row at some columns; −inf out of reach."""
        found = []
        for i in columns:
            logit = float(self.group[g, row] @ self.keys[i]) * self.scaling
            if self.softcap is not None:
                logit = self.softcap * math.tanh(logit / self.softcap)
            here, there = self.positions[row], self.positions[i]
            if self.window is not None and here - there >= self.window:
                logit = -math.inf
            if self.chunk is not None and here // self.chunk != there // self.chunk:
                logit = -math.inf
            found.append(logit)
        return found

    def attention(self, g: int, row: int, columns: list[int]) -> list[float]:
        """The softmax of these logits, and of the sink where there is one."""
        weights = softmax(self.logits(g, row, columns) + self.sinks[g : g + 1])
        return weights[: len(columns)]


def heads(trace: KVTrace, scaling: float | None = None) -> Iterator[Head]:
    """All heads of a trace."""
    form = trace.attention or AttentionForm.usual(L, trace.head_dim)

    def at(part: tuple, layer: int) -> float | None:
        return part[layer] if part else None

    for b in range(trace.batch_size):
        for layer in range(L):
            for h in range(H):
                group = slice(h * G, (h + 1) * G)
                yield Head(
                    (b, layer, h),
                    trace.keys[b, layer, h].double(),
                    trace.queries[b, layer, group].double(),
                    trace.positions[b].tolist(),
                    scaling or form.scaling[layer],
                    at(form.softcap, layer),
                    at(form.window, layer),
                    at(form.chunk, layer),
                    [] if form.sinks is None else form.sinks[layer, group].tolist(),
                )


def rkv_scores(trace: KVTrace, lam: float = 0.1, scaling: float | None = None) -> Scores:
    scores = {}
    for head in heads(trace, scaling):
        b, keys = head.place[0], head.keys
        columns = reasoning_columns(trace, b)
        answers = (trace.segment_ids[b] == Segment.ANSWER).nonzero()[:, 0].tolist()
        importance = [0.0] * len(columns)
        for answer in answers:
            rows = [head.attention(g, answer, columns) for g in range(G)]
            for slot in range(len(columns)):
                importance[slot] += max(row[slot] for row in rows) / len(answers)
        means = [
            sum(cosine(keys[i], keys[j]) for j in columns if j != i) / len(columns) for i in columns
        ]
        spread = softmax([-mean for mean in means])
        scores[head.place] = [lam * i + (1 - lam) * r for i, r in zip(importance, spread)]
    return scores


def rkv_official_scores(
    trace: KVTrace, lam: float = 0.07, window: int = 3, kernel: int = 7, threshold: float = 0.5
) -> Scores:
    scores = {}
    for head in heads(trace):
        b, keys = head.place[0], head.keys
        columns = reasoning_columns(trace, b)
        before, newest = columns[:-window], columns[-window:]
        attention = [0.0] * len(before)
        for row in newest if before else []:
            groups = [head.logits(g, row, before) + head.sinks[g : g + 1] for g in range(G)]
            weights = softmax([max(one) for one in zip(*groups)])
            attention = [a + p / len(newest) for a, p in zip(attention, weights)]
        half = kernel // 2
        pooled = [max(attention[max(0, i - half) : i + half + 1]) for i in range(len(attention))]
        share = [[cosine(keys[i], keys[j]) if i != j else 0.0 for j in columns] for i in columns]
        for row in share:
            alike = [slot for slot, number in enumerate(row) if number > threshold]
            row[alike[-1] if alike else 0] = 0.0
        means = [sum(row[slot] for row in share) / len(columns) for slot in range(len(columns))]
        redundancy = softmax(means)
        scores[head.place] = [lam * a - (1 - lam) * r for a, r in zip(pooled, redundancy)] + [
            math.inf
        ] * len(newest)
    return scores


def h2o_scores(trace: KVTrace) -> Scores:
    scores = {}
    for head in heads(trace):
        b = head.place[0]
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        received = dict.fromkeys(valid, 0.0)
        for g in range(G):
            for row in valid:
                seen = [i for i in valid if i <= row]
                for column, probability in zip(seen, head.attention(g, row, seen)):
                    if column < row:
                        received[column] += probability / G
        scores[head.place] = [received[i] for i in reasoning_columns(trace, b)]
    return scores


def attention_of(head: Head, row: int, valid: list[int]) -> dict[int, float]:
    """The attention of one row to every valid position up to itself, mean over the group."""
    seen = [i for i in valid if i <= row]
    mean = dict.fromkeys(valid, 0.0)
    for g in range(G):
        for column, probability in zip(seen, head.attention(g, row, seen)):
            mean[column] += probability / G
    return mean


def snapkv_scores(
    trace: KVTrace, window: int = 3, kernel: int = 5, scaling: float | None = None
) -> Scores:
    scores = {}
    for head in heads(trace, scaling):
        b = head.place[0]
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        columns = reasoning_columns(trace, b)
        before, newest = columns[:-window], columns[-window:]
        received = dict.fromkeys(before, 0.0)
        for row in newest if before else []:
            attention = attention_of(head, row, valid)
            received = {column: received[column] + attention[column] for column in before}
        half = kernel // 2
        pooled = [
            sum(received.get(neighbour, 0.0) for neighbour in range(i - half, i + half + 1))
            / kernel
            for i in before
        ]
        scores[head.place] = pooled + [math.inf] * len(newest)
    return scores


def tova_scores(trace: KVTrace, scaling: float | None = None) -> Scores:
    scores = {}
    for head in heads(trace, scaling):
        b = head.place[0]
        valid = trace.mask[b].nonzero()[:, 0].tolist()
        columns = reasoning_columns(trace, b)
        attention = attention_of(head, columns[-1], valid)
        scores[head.place] = [attention[i] for i in columns[:-1]] + [math.inf]
    return scores


ORACLES = {
    "rkv": rkv_scores,
    "rkv_official": rkv_official_scores,
    "h2o": h2o_scores,
    "snapkv": snapkv_scores,
    "tova": tova_scores,
}


def check(trace: KVTrace, scores: torch.Tensor, expected: Scores) -> None:
    for (b, layer, h), wanted in expected.items():
        got = scores[b, layer, h, reasoning_columns(trace, b)]
        torch.testing.assert_close(got, torch.tensor(wanted), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ORACLES)
def test_a_trace_that_tells_how_its_model_attends_is_scored_so(method: str, form: str) -> None:
    trace, _ = make_batch()
    told = replace(trace, attention=FORMS[form])
    options = {"window_size": 3} if "window_size" in fields_of(method) else {}
    eviction = build_eviction(method, **options)
    scores = eviction.score(told, find_candidates(told))
    check(told, scores, ORACLES[method](told))
    assert not torch.allclose(scores, eviction.score(trace, find_candidates(trace)))


def fields_of(method: str) -> set[str]:
    return set(EVICTIONS[method].__dataclass_fields__)


def test_every_method_that_looks_at_attention_has_its_formula() -> None:
    assert {name for name, eviction in EVICTIONS.items() if eviction.needs_queries} == set(ORACLES)


@pytest.mark.parametrize("method", ORACLES)
def test_a_given_scaling_takes_the_place_of_the_traces_own(method: str) -> None:
    trace, _ = make_batch()
    told = replace(trace, attention=FORMS["scaling"])
    _, given = compress(told, method, 4, scaling=0.9)
    _, wanted = compress(trace, method, 4, scaling=0.9)
    assert torch.equal(given, wanted)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize(("lam", "scaling"), [(0.0, None), (0.1, None), (0.6, 0.9), (1.0, None)])
def test_rkv_equals_its_formula(side: str, lam: float, scaling: float | None) -> None:
    trace, _ = make_batch(side)
    scores = RKVEviction(lam=lam, scaling=scaling).score(trace, find_candidates(trace))
    check(trace, scores, rkv_scores(trace, lam, scaling))


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
    check(trace, scores, snapkv_scores(trace, window, kernel, scaling))


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("scaling", [None, 0.9])
def test_tova_equals_its_formula(side: str, scaling: float | None) -> None:
    trace, _ = make_batch(side)
    scores = TOVAEviction(scaling=scaling).score(trace, find_candidates(trace))
    check(trace, scores, tova_scores(trace, scaling))


@pytest.mark.parametrize("method", ["rkv", "rkv_official", "h2o", "snapkv", "tova"])
def test_cutting_into_blocks_and_chunks_changes_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, _ = make_batch()
    _, whole = compress(trace, method, 6, scope="head")
    monkeypatch.setattr("kava.eviction.heads.CPU_NUMBERS", 1)
    monkeypatch.setattr("kava.eviction.h2o.ROWS", 3)
    monkeypatch.setattr("kava.eviction.rkv_official.ROWS", 5)
    monkeypatch.setattr("kava.eviction.rkv_official.TILE", 4)
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
