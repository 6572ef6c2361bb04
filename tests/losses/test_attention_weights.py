"""Position weights from the teacher's attention, against a slow loop."""

from __future__ import annotations

import pytest
import torch

from kava.eviction import compress
from kava.losses import attention_weights
from kava.trace import KVTrace, Segment

B, L, H, G, D = 2, 2, 2, 2, 4
SEGMENTS = torch.tensor([[-1, 0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2, 2, 2, -1]])


def make_trace() -> KVTrace:
    generator = torch.Generator().manual_seed(0)
    T = SEGMENTS.shape[1]

    def random(heads: int) -> torch.Tensor:
        return 2 * torch.randn(B, L, heads, T, D, generator=generator)

    return KVTrace(random(H), random(H), random(H * G), mask=SEGMENTS >= 0, segment_ids=SEGMENTS)


def attention_of(trace: KVTrace, b: int, layer: int, head: int) -> dict[int, float]:
    """The mean over the answer of its attention to each reasoning column, the best of a group."""
    assert trace.queries is not None
    columns = [t for t in range(trace.length) if SEGMENTS[b, t] == Segment.REASONING]
    rows = [t for t in range(trace.length) if SEGMENTS[b, t] == Segment.ANSWER]
    total = dict.fromkeys(columns, 0.0)
    for row in rows:
        groups = []
        for g in range(G):
            query = trace.queries[b, layer, head * G + g, row]
            logits = torch.stack([query @ trace.keys[b, layer, head, t] for t in columns])
            groups.append((logits / D**0.5).softmax(0))
        best = torch.stack(groups).amax(0)
        for column, weight in zip(columns, best.tolist()):
            total[column] += weight / len(rows)
    return total


def test_shared_columns_get_the_mean_over_layers_and_heads() -> None:
    trace = make_trace()
    columns = torch.tensor([[3, 6], [2, 4]])
    found = attention_weights(trace, columns)
    for b in range(B):
        each = [attention_of(trace, b, i, h) for i in range(L) for h in range(H)]
        expected = [sum(one[column] for one in each) / len(each) for column in columns[b].tolist()]
        assert found[b].tolist() == pytest.approx(expected, abs=1e-5)


def test_columns_of_a_head_get_that_heads_attention() -> None:
    trace = make_trace()
    _, indices_BLHM = compress(trace, "rkv", target_len=2, scope="head")
    found = attention_weights(trace, indices_BLHM)
    for b in range(B):
        for m in range(2):
            expected = [
                attention_of(trace, b, i, h)[int(indices_BLHM[b, i, h, m])]
                for i in range(L)
                for h in range(H)
            ]
            assert found[b, m].item() == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_a_trace_without_queries_is_refused() -> None:
    trace = make_trace()
    bare = KVTrace(trace.keys, trace.values, mask=trace.mask, segment_ids=trace.segment_ids)
    with pytest.raises(ValueError, match="queries"):
        attention_weights(bare, torch.tensor([[3], [2]]))
