"""Samples without a chain of thought (such as ARC's) mixed with samples that have one.

With `--keep_short` the student learns their answer, and their latents have no target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.data.encoded import Encoded
from kava.train.scores import needs_scores

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


def check_bare(config: TrainConfig, samples: Sequence[Encoded]) -> None:
    """Refuse samples without reasoning if the run needs a target for their latents.

    Args:
        config: the run's configuration.
        samples: all training samples.

    Raises:
        ValueError: the run matches caches and no sample has reasoning, or the method needs
            reasoning in every sample.

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
