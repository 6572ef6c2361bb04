"""The trace keeps its parts together and its axes apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from kava.trace import KVTrace, iter_past, stack_past_kv

B, L, H, T, D = 3, 3, 2, 5, 4  # as many samples as layers: a mixed-up axis has the right shape
GROUP = 2


def coordinates(num_heads: int, offset: int = 0) -> torch.Tensor:
    """[B, L, heads, T, D] whose every entry spells its own index."""
    b, layer, h, t, d = torch.meshgrid(
        *(torch.arange(size) for size in (B, L, num_heads, T, D)), indexing="ij"
    )
    return (((b * 10 + layer) * 10 + h) * 10 + t) * 10 + d + offset


@pytest.fixture
def trace() -> KVTrace:
    return KVTrace(
        keys=coordinates(H).float(),
        values=coordinates(H, offset=100_000).float(),
        queries=coordinates(H * GROUP, offset=200_000).float(),
        mask=torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool(),
        segment_ids=torch.tensor([[0, 1, 1, 2, 2], [-1, 0, 1, 1, 2], [0, 1, 2, -1, -1]]),
        positions=torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 2, 3], [0, 1, 2, 2, 2]]),
    )


def past(num_layers: int, as_type: str) -> Any:
    torch.manual_seed(0)
    layers = [(torch.randn(2, 8, 50, 64), torch.randn(2, 8, 50, 64)) for _ in range(num_layers)]
    if as_type == "cache":
        return DynamicCache(layers)
    if as_type == "numpy":
        return [(key.numpy(), value.numpy()) for key, value in layers]
    return tuple(layers)


@pytest.mark.parametrize("as_type", ["tuple", "cache", "numpy"])
def test_a_cache_stacks_bit_exactly(as_type):
    cache = past(4, as_type)
    stacked = stack_past_kv(cache)
    assert stacked.shape == (4, 2, 2, 8, 50, 64)
    assert isinstance(stacked, np.ndarray if as_type == "numpy" else torch.Tensor)
    for layer, (key, value) in enumerate(past(4, "tuple")):
        for index, part in enumerate((key, value)):
            np.testing.assert_array_equal(np.asarray(stacked[layer, index]), part.numpy())


def test_a_stacked_cache_keeps_dtype_and_gradients():
    layers = [(torch.randn(1, 2, 3, 4, dtype=torch.bfloat16, requires_grad=True),) * 2]
    stacked = stack_past_kv(layers)
    assert stacked.dtype == torch.bfloat16
    stacked.sum().backward()
    assert layers[0][0].grad is not None


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (None, "use_cache=True"),
        ((), "no layers"),
        ([(torch.zeros(1, 1, 3, 2), None)], "layer 0 .* holds no keys"),
        ([(torch.zeros(1, 1, 3, 2),) * 2, (torch.zeros(1, 1, 2, 2),) * 2], "differ in shape"),
    ],
)
def test_a_cache_without_keys_and_values_is_refused(cache, message):
    with pytest.raises(ValueError, match=message):
        stack_past_kv(cache)


def test_layers_come_in_order():
    layers = [(torch.full((1, 1, 1, 1), float(i)),) * 2 for i in range(4)]
    assert [key.item() for key, _ in iter_past(layers)] == [0, 1, 2, 3]


def test_axes_are_batch_layers_heads_positions_dims(trace):
    assert (trace.batch_size, trace.num_layers, trace.num_heads) == (B, L, H)
    assert (trace.length, trace.head_dim) == (T, D)
    assert trace.keys[2, 0, 1, 4, 3] == 20143
    # The sample 2 of all layers, then the layer 2 of all samples: of one shape, not of one value.
    assert trace.samples([2]).keys[0, 1, 0, 0, 0] == 21000
    assert trace.layers([2]).keys[1, 0, 0, 0, 0] == 12000


def test_a_slice_cuts_every_part(trace):
    cut = trace.slice(1, 4)
    assert cut.length == 3
    for name in ("keys", "values", "queries"):
        assert torch.equal(getattr(cut, name), getattr(trace, name)[:, :, :, 1:4])
    for name in ("mask", "segment_ids", "positions"):
        assert torch.equal(getattr(cut, name), getattr(trace, name)[:, 1:4])


def test_samples_take_every_part_and_layers_leave_the_shared_ones(trace):
    one = trace.samples([1])
    assert torch.equal(one.mask, trace.mask[1:2])
    assert torch.equal(one.positions, trace.positions[1:2])
    assert torch.equal(one.queries, trace.queries[1:2])
    last = trace.layers([2])
    assert last.num_layers == 1
    assert torch.equal(last.mask, trace.mask)
    assert torch.equal(last.values, trace.values[:, 2:])


def test_a_shared_gather_takes_the_same_positions_of_every_part(trace):
    indices = torch.tensor([[0, 4], [1, 3], [2, 0]])
    kept = trace.gather(indices, scope="model")
    for name in ("keys", "values", "queries"):
        for b in range(B):
            for m in range(2):
                expected = getattr(trace, name)[b, :, :, indices[b, m]]
                assert torch.equal(getattr(kept, name)[b, :, :, m], expected)
    for name in ("mask", "segment_ids", "positions"):
        assert torch.equal(getattr(kept, name), getattr(trace, name).gather(1, indices))
    assert kept.scope == "model"


def test_a_gather_by_head_moves_query_groups_with_their_key_head(trace):
    torch.manual_seed(0)
    indices = torch.randint(0, T, (B, L, H, 2))
    kept = trace.gather(indices, mask=torch.ones(B, 2, dtype=torch.bool), scope="head")
    for b, layer, h, m in np.ndindex(B, L, H, 2):
        t = indices[b, layer, h, m]
        assert torch.equal(kept.keys[b, layer, h, m], trace.keys[b, layer, h, t])
        assert torch.equal(kept.values[b, layer, h, m], trace.values[b, layer, h, t])
        assert kept.positions[b, layer, h, m] == trace.positions[b, t]
        assert kept.segment_ids[b, layer, h, m] == trace.segment_ids[b, t]
        for query_head in range(h * GROUP, (h + 1) * GROUP):
            assert torch.equal(
                kept.queries[b, layer, query_head, m], trace.queries[b, layer, query_head, t]
            )
    again = kept.gather(torch.zeros(B, 1, dtype=torch.long))
    assert torch.equal(again.positions, kept.positions[..., :1])


def test_a_gather_by_head_needs_the_mask_of_the_result(trace):
    with pytest.raises(ValueError, match="needs the result's mask"):
        trace.gather(torch.zeros(B, L, H, 1, dtype=torch.long))


def test_a_gather_by_a_wrong_shape_is_refused(trace):
    with pytest.raises(ValueError, match=r"indices must be \[3, M\]"):
        trace.gather(torch.zeros(B, L, 1, dtype=torch.long))


def test_gradients_pass_a_gather_and_stop_at_detach(trace):
    keys = trace.keys.clone().requires_grad_()
    live = KVTrace(keys, trace.values, mask=trace.mask)
    live.gather(torch.tensor([[1], [2], [0]])).keys.sum().backward()
    assert keys.grad is not None
    assert keys.grad[0, :, :, 1].eq(1).all()
    assert keys.grad[0, :, :, 0].eq(0).all()
    assert live.keys.requires_grad
    assert not live.detach().keys.requires_grad


def test_a_move_casts_floats_and_leaves_indices(trace):
    moved = trace.to("cpu", torch.bfloat16)
    assert {moved.keys.dtype, moved.values.dtype, moved.queries.dtype} == {torch.bfloat16}
    assert moved.mask.dtype == torch.bool
    assert moved.positions.dtype == torch.long
    meta = trace.to("meta")
    parts = (meta.keys, meta.values, meta.queries, meta.mask, meta.segment_ids, meta.positions)
    assert {part.device.type for part in parts} == {"meta"}


def test_positions_are_valid_without_a_mask(trace):
    assert KVTrace(trace.keys, trace.values).valid_BT().all()
    assert torch.equal(trace.valid_BT(), trace.mask)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"values": torch.zeros(B, L, H, T - 1, D)}, "values"),
        ({"queries": torch.zeros(B, L, H + 1, T, D)}, "a multiple of 2"),
        ({"mask": torch.zeros(B, T + 1)}, "mask must be"),
        ({"positions": torch.zeros(B, L, T)}, "positions must be"),
        ({"segment_ids": torch.zeros(T)}, "segment_ids must be"),
        ({"scope": "heads"}, "scope='heads' is unknown"),
        ({"keys": torch.zeros(B, L, T, D)}, r"\[B, L, H, T, D\]"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(trace, parts, message):
    whole = {"keys": trace.keys, "values": trace.values} | parts
    with pytest.raises(ValueError, match=message):
        KVTrace(**whole)
