"""Checks of a cache of bounded size against the other flags of an extraction."""

from __future__ import annotations

from collections.abc import Collection

from kava.eviction import EVICTIONS
from kava.train.config import TrainConfig


def check_budget(config: TrainConfig, full: bool, include: Collection[str]) -> None:
    """Refuse what a text that was read with a bounded cache does not leave behind.

    Args:
        config: the run's settings, with a bounded cache.
        full: whether whole texts are to be stored.
        include: what else is.

    Raises:
        ValueError: names the flag and the mend.
    """
    asked = f"--cache_budget {config.cache_budget}"
    method = config.kv_method
    if full or config.resampling is not None:
        what = "--full" if full else "--use_segment_resampling"
        raise ValueError(
            f"{asked} drops positions while a text is read, and {what} needs all of them: leave "
            f"one of the two out"
        )
    if method in ("full", "positions") or EVICTIONS[method].needs_scores:
        raise ValueError(
            f"{asked} drops positions while a text is read, and --kv_method {method} needs all "
            f"of them: choose another method, such as rkv"
        )
    if config.cache_budget is not None and config.target_len > config.cache_budget:
        raise ValueError(
            f"{asked} holds fewer positions than --target_len {config.target_len}: raise it"
        )
    for name in ("answer", "codi"):
        if name in include:
            raise ValueError(
                f"{asked} keeps no hidden states and logits, which --include {name} stores: leave "
                f"one of the two out"
            )
    if config.codi_weight > 0:
        raise ValueError(
            f"{asked} keeps no hidden states, which --codi_weight matches: leave one of the two out"
        )
    if config.fusion in ("confidence", "min_ce", "avg_ce"):
        raise ValueError(
            f"{asked} keeps no logits, by which --fusion {config.fusion} weighs: choose another "
            f"fusion"
        )
