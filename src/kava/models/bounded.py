"""Read a text of any length with a cache of bounded size.

Block by block: the model reads a block over what its cache holds, the block's queries add to the
scores of what they attend to, and the cache is cut to its budget. Memory does not grow with the
text. As long as the text fits the budget, nothing is dropped, and the result is that of one
forward; beyond it, keys and values are an approximation, since later positions no longer see those
that were dropped.

Shapes: B batch, L layers, H key/value heads, T columns, S positions in the cache, D head dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kava.eviction.bounded import CacheBudget, received_from_block
from kava.models.capture import capture, check_attention
from kava.models.chunked import check_chunk, chunks_of
from kava.trace import KVTrace, join_columns


@torch.no_grad()
def capture_bounded(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    budget: CacheBudget,
    block: int,
    chunk: int | None = None,
    queries: bool = False,
) -> tuple[KVTrace, Tensor]:
    """Read texts with a cache of bounded size, and return what it holds at the end.

    A sample keeps the same positions alone and in any batch, on whichever side it is padded: blocks
    are counted in its own valid positions. The result depends on `block`, where texts exceed the
    budget, and not on `chunk`.

    Args:
        model: a causal model in evaluation mode, whose attention can be rebuilt from a trace.
        input_ids: [B, T].
        attention_mask: [B, T], nonzero at valid positions; None: all are valid.
        segment_ids: [B, T], recorded in the trace.
        budget: what the cache holds.
        block: positions that are read between two cuts; the cache never holds more than the budget
            and a block.
        chunk: positions of a forward; None: a block.
        queries: keep the queries of what stays in the cache, too.

    Returns:
        The trace of the at most `budget.size` positions that stay, with their own position ids; and
        their columns in the input, [B, S], or [B, L, H, S] where heads keep their own.

    Raises:
        ValueError: a block or chunk below 1, an encoder, a family whose attention cannot be
            rebuilt, a window that a text longer than the budget exceeds, or rotary frequencies that
            depend on the length of the text.

    Example:
        >>> budget = CacheBudget(size=2048)
        >>> trace, columns = capture_bounded(teacher, ids, mask, budget=budget, block=1024)
    """
    for size in (block, chunk):
        check_chunk(model, size, attention_mask, input_ids)
    check_attention(model, "a bounded cache")
    mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    # valid positions first: blocks then cut every text at the same of its own positions
    order_BT = mask_BT.bool().long().argsort(dim=1, descending=True, stable=True)
    counts_B = mask_BT.bool().sum(dim=1)
    if not bool(counts_B.all()):
        raise ValueError(f"sample {int(counts_B.argmin())} of the batch has no valid position")
    longest = int(counts_B.max())
    ids_BT = input_ids.gather(1, order_BT)[:, :longest]
    segments_BT = None if segment_ids is None else segment_ids.gather(1, order_BT)[:, :longest]
    positions_BT = torch.arange(longest, device=input_ids.device).expand(len(ids_BT), longest)
    valid_BT = positions_BT < counts_B[:, None]

    kept: KVTrace | None = None
    received: Tensor | None = None
    for start, stop in chunks_of(longest, block):
        cache = _cache_of(kept)
        before = valid_BT[:, :0] if kept is None else kept.valid_BT()
        parts = [] if kept is None else [kept]
        for first, last in chunks_of(stop - start, chunk or block):
            rows = slice(start + first, start + last)
            _, new = capture(
                model,
                ids_BT[:, rows],
                torch.cat([before, valid_BT[:, start : start + last]], dim=1).long(),
                None if segments_BT is None else segments_BT[:, rows],
                position_ids=positions_BT[:, rows],
                past_key_values=cache,
                queries=True,
                hidden_states=False,
                logits_to_keep=1,
            )
            if kept is None and not first:
                _check_reach(model, new, longest, budget)
            asked = new.queries
            assert asked is not None
            parts.append(new if queries else replace(new, queries=None))
            whole = join_columns(parts)
            gained = received_from_block(whole, asked)
            if received is not None:
                gained[..., : received.shape[-1]] += received
            received, parts = gained, [whole]
        assert received is not None
        kept, received = budget.cut(parts[0], received, counts_B.clamp(max=stop))
    assert kept is not None
    kept = replace(kept, scope=budget.scope, attention=kept.attention if queries else None)
    at = kept.positions
    assert at is not None
    if budget.scope == "model":
        return kept, order_BT.gather(1, at)
    if at.ndim == 2:  # nothing was dropped
        everywhere = torch.arange(kept.length, device=at.device).expand(kept.keys.shape[:4])
        kept = kept.gather(everywhere, mask=kept.mask, scope=budget.scope)
        at = kept.positions
        assert at is not None
    return kept, order_BT[:, None, None].expand(*at.shape[:-1], -1).gather(-1, at)


def _cache_of(kept: KVTrace | None) -> DynamicCache:
    cache = DynamicCache()
    if kept is not None:
        for layer, (keys, values) in enumerate(zip(kept.keys.unbind(1), kept.values.unbind(1))):
            cache.update(keys, values, layer)
    return cache


def _check_reach(model: PreTrainedModel, trace: KVTrace, longest: int, budget: CacheBudget) -> None:
    """Refuse a window or attention chunk that a cut cache, whose columns move up, would shift."""
    assert trace.attention is not None
    form = trace.attention
    reach = min((size for size in (*form.window, *form.chunk) if size is not None), default=longest)
    if reach < longest and budget.size < longest:
        raise ValueError(
            f"{type(model).__name__} has layers that see {reach:,} positions and no further, by "
            f"their place in the cache, which a cache of {budget.size:,} positions moves: read "
            f"the text of {longest:,} positions in chunks alone (--capture_chunk without "
            f"--cache_budget)"
        )
