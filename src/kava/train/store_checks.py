"""Checks of the flags about stored teachers."""

from __future__ import annotations

from kava.train.cache_budget import check_cache
from kava.train.settings import Settings


def check_store(config: Settings) -> None:
    """Check `--store`, `--store_tier` and the bounded cache against the other flags.

    Raises:
        ValueError: the first conflict; the message names the flags and the mend.
    """
    check_cache(config)
    if not config.store:
        if config.store_tier != "targets":
            raise ValueError(
                f"--store_tier {config.store_tier} is read where --store names a store: name one, "
                f"or leave it out"
            )
        return
    named = f"--store {' '.join(config.store)}"
    if config.self_distillation or not config.needs_teacher:
        why = (
            "in self-distillation the teacher changes with every step: name a --teacher_name"
            if config.self_distillation
            else "no loss of this run reads a teacher: leave it out"
        )
        raise ValueError(f"{named} stands for a frozen teacher, and {why}")
    count = len(config.teachers or [config.teacher_name])
    if len(config.store) != count:
        raise ValueError(
            f"{named} names {len(config.store)}, and there {'is' if count == 1 else 'are'} "
            f"{count} to stand for: name one for each teacher, in their order"
        )
    if config.use_segment_resampling and config.store_tier == "targets":
        raise ValueError(
            f"{named}: --use_segment_resampling reads whole texts: pass --store_tier full, of a "
            f"store that was extracted with --full"
        )
