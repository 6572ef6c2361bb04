"""Samples whose task has no written reasoning, as ARC's, beside others that have some.

With `--keep_short` their answer is learned and their latents are left without a target: nothing
is made up for them to be matched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.encoded import Encoded
from kava.train.scores import needs_scores

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


def check_bare(config: TrainConfig, samples: Sequence[Encoded]) -> None:
    """Refuse samples without reasoning where their latents cannot be left without a target.

    Args:
        config: the run's configuration.
        samples: all training samples.

    Raises:
        ValueError: no sample has reasoning, though caches are to be matched; or the method needs
            reasoning of each.

    Example:
        >>> check_bare(TrainConfig(), samples)
    """
    bare = [sample.id for sample in samples if not sample.num_reasoning]
    if not bare or not config.matches_cache:
        return
    if len(bare) == len(samples):
        raise ValueError(
            f"{config.dataset_name} has no written reasoning whose cache could be matched: pass "
            f"{config.no_matching}, or mix it with data that have some"
        )
    if config.kv_method == "full" or config.resampling is not None or needs_scores(config):
        raise ValueError(
            f"{len(bare)} samples have no reasoning ({bare[0]}, …), which --kv_method "
            f"{config.kv_method} needs of each: choose rkv, or leave their task out"
        )
