"""A cache of bounded size holds what a slow loop over whole readings says, in bounded memory."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

import attention_families
from families import FAMILIES, VOCAB_SIZE, llama
from kava.eviction import compress
from kava.eviction.bounded import CacheBudget
from kava.models.bounded import capture_bounded
from kava.models.capture import capture
from kava.trace import KVTrace

LENGTHS = (23, 9, 16, 1)
BUDGETS = {
    "rkv": CacheBudget(size=8, num_sinks=2, num_recent=3, score="rkv", lam=0.4),
    "rkv per head": CacheBudget(size=7, num_sinks=1, num_recent=2, lam=0.6, scope="head"),
    "rkv per layer": CacheBudget(size=7, num_sinks=0, num_recent=0, lam=0.0, scope="layer"),
    "h2o": CacheBudget(size=8, num_sinks=0, num_recent=4, score="h2o"),
    "h2o per head": CacheBudget(size=6, num_sinks=2, num_recent=2, score="h2o", scope="head"),
    "recent": CacheBudget(size=8, score="recent"),
}
FULL = [name for name, one in attention_families.FAMILIES.items() if not (one.window or one.chunk)]
REACHING = [name for name in attention_families.FAMILIES if name not in FULL]


def ragged(side: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    width = max(LENGTHS) + 2
    ids = torch.full((len(LENGTHS), width), 5)
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.long)
    for row, size in enumerate(LENGTHS):
        start = {"left": width - size, "right": 0, "both": 1}[side]
        ids[row, start : start + size] = torch.randint(1, VOCAB_SIZE, (size,), generator=generator)
        mask[row, start : start + size] = 1
    return ids, mask, torch.where(mask.bool(), torch.arange(width) % 3, -1)


class Masked:
    """Reads texts with a mask of its own for every layer and query head."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.visible: torch.Tensor | None = None  # [L, H, T, T]

        def attend(module, query, key, value, attention_mask, scaling, **options):
            groups = query.shape[1] // key.shape[1]
            visible = self.visible[module.layer_idx].repeat_interleave(groups, 0)
            logits = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
            weights = logits.masked_fill(~visible, -math.inf).softmax(-1)
            return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2), weights

        AttentionInterface.register("masked_by_test", attend)
        AttentionMaskInterface.register("masked_by_test", eager_mask)
        model.set_attn_implementation("masked_by_test")

    def read(self, ids: torch.Tensor, visible: torch.Tensor) -> KVTrace:
        self.visible = visible
        return capture(self.model, ids[None], queries=True)[1]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@torch.no_grad()
def slow(masked: Masked, ids: torch.Tensor, budget: CacheBudget, block: int):
    """The kept positions of every layer and head, and whole readings in which the rest is hidden.

    The text so far is read anew for every block, every earlier query with what it saw at its time.
    """
    T = len(ids)
    L = masked.model.config.num_hidden_layers
    H = masked.model.config.num_key_value_heads
    alive = [[[] for _ in range(H)] for _ in range(L)]
    visible = torch.zeros(L, H, T, T, dtype=torch.bool)
    received = torch.zeros(L, H, T, dtype=torch.float64)
    trace: KVTrace | None = None
    for start in range(0, T, block):
        stop = min(start + block, T)
        for layer in range(L):
            for head in range(H):
                for q in range(start, stop):
                    for k in [*alive[layer][head], *range(start, q + 1)]:
                        visible[layer, head, q, k] = True
        trace = masked.read(ids[:stop], visible[:, :, :stop, :stop])
        G = trace.queries.shape[2] // H
        for layer in range(L):
            for head in range(H):
                keys = trace.keys[0, layer, head].double()
                for g in range(G):
                    for q in range(start, stop):
                        query = trace.queries[0, layer, head * G + g, q].double()
                        seen = visible[layer, head, q].nonzero()[:, 0].tolist()
                        logits = torch.stack([query @ keys[k] for k in seen])
                        weights = (logits / math.sqrt(keys.shape[1])).softmax(0)
                        for k, weight in zip(seen, weights):
                            if k != q:
                                received[layer, head, k] += weight / G
                alive[layer][head] += range(start, stop)
        there = alive[0][0]
        if len(there) <= budget.size:
            continue
        scores = torch.zeros(L, H, T, dtype=torch.float64)
        for layer in range(L):
            for head in range(H):
                there = alive[layer][head]
                got = received[layer, head, there]
                keys = trace.keys[0, layer, head].double()
                alike = torch.tensor(
                    [
                        sum(cosine(keys[i], keys[j]) for j in there if j != i) / len(there)
                        for i in there
                    ]
                )
                if budget.score == "rkv":
                    got = budget.lam * got / got.sum() + (1 - budget.lam) * (-alike).softmax(0)
                scores[layer, head, there] = got
        if budget.scope == "model":
            scores = scores.mean((0, 1), keepdim=True).expand(L, H, T)
        elif budget.scope == "layer":
            scores = scores.mean(1, keepdim=True).expand(L, H, T)
        for layer in range(L):
            for head in range(H):
                there = alive[layer][head]
                stays = [k for k in there if k < budget.sinks or k >= stop - budget.recent]
                others = [k for k in there if k not in stays]
                others.sort(key=lambda k: -scores[layer, head, k])
                alive[layer][head] = sorted(stays + others[: budget.size - len(stays)])
    return alive, trace


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("name", BUDGETS)
def test_the_cache_holds_what_a_slow_loop_keeps(name, block):
    budget = BUDGETS[name]
    ids, mask, segments = ragged("left")
    trace, columns = capture_bounded(
        llama(attention="eager"), ids, mask, segments, budget=budget, block=block
    )
    masked = Masked(llama(attention="eager"))
    B, L, H = trace.keys.shape[:3]
    for row in range(B):
        valid = mask[row].bool()
        kept, whole = slow(masked, ids[row][valid], budget, block)
        first = int(valid.long().argmax())
        used = trace.valid_BT()[row]
        for layer in range(L):
            for head in range(H):
                at = trace.positions[row]
                where = columns[row]
                if at.ndim == 3:
                    at, where = at[layer, head], where[layer, head]
                assert at[used].tolist() == kept[layer][head]
                assert where[used].tolist() == [first + k for k in kept[layer][head]]
                for part in ("keys", "values"):
                    found = getattr(trace, part)[row, layer, head][used]
                    expected = getattr(whole, part)[0, layer, head][kept[layer][head]]
                    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", FULL)
def test_every_family_reads_on_over_a_cut_cache(name):
    """Later positions see what stays, and positions keep their numbers."""
    family = attention_families.FAMILIES[name]
    budget = CacheBudget(size=6, num_sinks=2, score="recent")
    ids = torch.randint(1, VOCAB_SIZE, (1, 14), generator=torch.Generator().manual_seed(0))
    trace, columns = capture_bounded(family.build(), ids, budget=budget, block=3)
    assert columns.tolist() == [[0, 1, 10, 11, 12, 13]]
    hidden = torch.full((14, 14), torch.finfo(torch.float32).min)
    for query in range(14):
        newest = query - query % 3 - 4
        for key in range(query + 1):
            if key < 2 or key >= newest:
                hidden[query, key] = 0
    with torch.no_grad():
        model = family.build()
        whole = model(
            ids,
            attention_mask=hidden[None, None],
            position_ids=torch.arange(14)[None],
            use_cache=True,
            past_key_values=None,
        ).past_key_values
    for layer, (keys, values) in enumerate((one.keys, one.values) for one in whole.layers):
        expected = keys[:, :, columns[0]], values[:, :, columns[0]]
        for found, wanted in zip((trace.keys[:, layer], trace.values[:, layer]), expected):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", REACHING)
def test_windows_that_a_cut_cache_would_shift_are_refused(name):
    model = attention_families.FAMILIES[name].build()
    ids = torch.randint(1, VOCAB_SIZE, (1, 14), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="layers that see 4 positions and no further"):
        capture_bounded(model, ids, budget=CacheBudget(size=6), block=3)
    trace, _ = capture_bounded(model, ids, budget=CacheBudget(size=14), block=3)
    _, whole = capture(model, ids)
    torch.testing.assert_close(trace.keys, whole.keys, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("name", BUDGETS)
def test_neither_padding_nor_chunks_change_what_is_kept(name, side):
    model, budget = llama(), BUDGETS[name]
    ids, mask, segments = ragged(side)
    trace, columns = capture_bounded(
        model, ids, mask, segments, budget=budget, block=6, chunk=4, queries=True
    )
    assert trace.length == budget.size
    for row, size in enumerate(LENGTHS):
        alone = ids[row][mask[row].bool()][None]
        theirs, where = capture_bounded(model, alone, budget=budget, block=6, queries=True)
        used = trace.valid_BT()[row]
        assert int(used.sum()) == min(size, budget.size)
        first = int(mask[row].argmax())
        assert torch.equal(columns[row][..., used], where[0] + first)
        for part in ("keys", "values", "queries"):
            found = getattr(trace, part)[row][:, :, used]
            torch.testing.assert_close(found, getattr(theirs, part)[0], atol=2e-5, rtol=1e-3)
        at = columns[row][..., used]
        said = trace.segment_ids[row][..., used]
        assert torch.equal(segments[row].expand(*at.shape[:-1], -1).gather(-1, at), said)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mistral"])
@pytest.mark.parametrize("block", [1, 4, 99])
def test_within_the_budget_the_result_is_that_of_one_forward(family, block):
    model = FAMILIES[family]()
    ids, mask, segments = ragged("right")
    budget = CacheBudget(size=max(LENGTHS))
    trace, columns = capture_bounded(
        model, ids, mask, segments, budget=budget, block=block, queries=True
    )
    with torch.no_grad():
        _, whole = capture(model, ids, mask, segments, queries=True)
    for row, size in enumerate(LENGTHS):
        assert columns[row, :size].tolist() == list(range(size))
        for part in ("keys", "values", "queries"):
            found = getattr(trace, part)[row][:, :, trace.mask[row]]
            expected = getattr(whole, part)[row][:, :, :size]
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("scope", ["model", "layer", "head"])
@pytest.mark.parametrize("size", [3, 8])
def test_one_cut_keeps_what_h2o_keeps_of_the_whole_text(size, scope):
    model = llama()
    ids, mask, _ = ragged("left")
    budget = CacheBudget(size=size, num_sinks=0, num_recent=0, score="h2o", scope=scope)
    trace, columns = capture_bounded(model, ids, mask, budget=budget, block=64, chunk=5)
    with torch.no_grad():
        _, whole = capture(model, ids, mask, queries=True)
    kept, indices = compress(whole, "h2o", size, scope=scope)
    used = kept.valid_BT()
    assert torch.equal(used, trace.valid_BT())
    for row in range(len(LENGTHS)):
        ours = columns[row][..., used[row]]
        assert torch.equal(
            ours.expand_as(indices[row][..., used[row]]), indices[row][..., used[row]]
        )
        torch.testing.assert_close(
            trace.keys[row][:, :, used[row]], kept.keys[row][:, :, used[row]], atol=2e-5, rtol=1e-3
        )


def test_the_cache_never_holds_more_than_the_budget_and_a_block():
    model, widths = llama(), []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(
            (kwargs["past_key_values"].get_seq_length(), kwargs["input_ids"].shape[1])
        ),
        with_kwargs=True,
    )
    ids = torch.randint(1, VOCAB_SIZE, (2, 60))
    capture_bounded(model, ids, budget=CacheBudget(size=10), block=6, chunk=4)
    widths = [one for one in widths if one[0]]
    assert max(past for past, _ in widths) == 10 + 4
    assert max(past + new for past, new in widths) == 10 + 6


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": 0}, "size=0 must be at least 1"),
        ({"size": 8, "num_sinks": -1}, "num_sinks=-1 must be at least 0"),
        ({"size": 8, "num_sinks": 4, "num_recent": 5}, "4 sinks and 5 recent positions are more"),
        ({"size": 8, "num_sinks": 9}, "9 sinks and 0 recent positions are more"),
        ({"size": 8, "score": "tova"}, "score='tova' is unknown; choose from rkv, h2o, recent"),
        ({"size": 8, "score": "recent", "num_recent": 1}, "leave 3 of 8 to scores"),
        ({"size": 8, "lam": 1.5}, "lam=1.5 must lie between 0"),
        ({"size": 8, "scope": "row"}, "scope='row' is unknown"),
    ],
)
def test_a_budget_that_fits_nothing_is_refused(options, part):
    with pytest.raises(ValueError, match=part):
        CacheBudget(**options)


def test_bad_reading_is_refused():
    ids = torch.ones(2, 4, dtype=torch.long)
    budget = CacheBudget(size=2)
    with pytest.raises(ValueError, match="chunk=0 must be a whole number"):
        capture_bounded(llama(), ids, budget=budget, block=0)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match="sample 1 of the batch has no valid position"):
        capture_bounded(llama(), ids, mask, budget=budget, block=2)
    bloom = attention_families.Family(kind="bloom").build()
    with pytest.raises(ValueError, match="a bounded cache looks at attention, but the queries"):
        capture_bounded(bloom, ids, budget=budget, block=2)
