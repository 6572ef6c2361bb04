"""Reading a batch of an extraction with a cache of bounded size.

Shapes: B batch, L layers, H key/value heads, T columns, S positions that the cache holds at the
end, M kept positions.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kava.data.collate import Batch
from kava.eviction.bounded import CacheBudget
from kava.extract.items import Read
from kava.models.bounded import capture_bounded
from kava.trace import KVTrace, Segment
from kava.train.config import TrainConfig


def check_alignment(config: TrainConfig, own_tokens: bool) -> None:
    """Refuse a target at tokens of the student whose ends the cache may have dropped.

    Args:
        config: the run's settings.
        own_tokens: whether the teacher reads tokens of its own.

    Raises:
        ValueError: it does, and its positions are aligned with the student's.
    """
    if own_tokens and config.token_alignment != "none":
        raise ValueError(
            f"--token_alignment {config.token_alignment} reads the teacher's cache at the end of "
            f"each of the student's tokens, which --cache_budget {config.cache_budget} may have "
            f"dropped: pass --token_alignment none"
        )


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
