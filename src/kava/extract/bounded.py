"""Reading a batch of an extraction with a cache of bounded size.

Shapes: B batch, L layers, H key/value heads, T columns, S positions that the cache holds at the
end, M kept positions.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from kava.data.collate import Batch
from kava.eviction.bounded import CacheBudget
from kava.extract.items import Read
from kava.models.bounded import capture_bounded
from kava.trace import KVTrace, Segment
from kava.train.config import TrainConfig


def budget_settings(config: TrainConfig, budget: CacheBudget, own_tokens: bool) -> dict[str, Any]:
    """The cache in a store's settings of kept positions.

    Raises:
        ValueError: the teacher reads tokens of its own, and a target is at the student's.
    """
    if own_tokens and config.token_alignment != "none":
        raise ValueError(
            f"--token_alignment {config.token_alignment} reads the teacher's cache at the end of "
            f"each of the student's tokens, which --cache_budget {budget.size} may have dropped: "
            f"pass --token_alignment none"
        )
    return {
        "cache_budget": budget.size,
        "cache_block": config.capture_chunk,
        "cache_sinks": budget.sinks,
        "cache_recent": budget.recent,
        "cache_scores": budget.score,
        "cache_lambda": budget.lam if budget.score == "rkv" else None,
    }


def read_bounded(
    model: PreTrainedModel, batch: Batch, config: TrainConfig, budget: CacheBudget, queries: bool
) -> Read:
    """A teacher's bounded cache over a batch.

    Args:
        model: the teacher.
        batch: as the collator makes it.
        config: the run's settings.
        budget: of the cache.
        queries: whether the eviction looks at the answer's queries.

    Raises:
        ValueError: a sample of which the cache holds too few reasoning positions at the end, or,
            with `queries`, not the whole answer.
    """
    text = batch.get("teacher", batch)
    assert config.capture_chunk is not None
    trace, columns_BS = capture_bounded(
        model,
        text["input_ids"],
        text["attention_mask"],
        text["segment_ids"],
        budget=budget,
        block=config.capture_chunk,
        queries=queries,
    )
    _check_left(trace, batch, config, budget, queries)
    return Read(trace, None, None, None, columns_BS)


def _check_left(
    trace: KVTrace, batch: Batch, config: TrainConfig, budget: CacheBudget, queries: bool
) -> None:
    segments_BT = batch.get("teacher", batch)["segment_ids"]
    assert trace.segment_ids is not None
    left_BS = torch.where(trace.valid_BT(), trace.segment_ids, int(Segment.PADDING))
    counts = {
        segment: (segments_BT.eq(segment).sum(1).tolist(), left_BS.eq(segment).sum(1).tolist())
        for segment in (Segment.REASONING, Segment.ANSWER)
    }
    for sample, had, has in zip(batch["ids"], *counts[Segment.REASONING]):
        if has < min(had, config.target_len):
            raise ValueError(
                f"of the {had:,} reasoning positions of sample {sample!r} the cache holds {has:,} "
                f"at the end, fewer than --target_len {config.target_len}: raise --cache_budget "
                f"{budget.size}, or lower --cache_recent {budget.recent}"
            )
    for sample, had, has in zip(batch["ids"], *counts[Segment.ANSWER]):
        if queries and has < had:
            raise ValueError(
                f"sample {sample!r} ends in an answer of {had:,} tokens, of which the cache has "
                f"dropped {had - has:,}, and --kv_method {config.kv_method} looks at their "
                f"queries: raise --cache_recent {budget.recent}"
            )
