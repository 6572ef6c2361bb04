"""What a run is held to by its models before data are read, and by its data before it trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kava.align import CacheGeometry
from kava.data.encode import Encoded
from kava.limits import check_answers_fit, check_latents_fit, check_map_rank_fits, positions_of
from kava.models import load_model_config
from kava.train.config import TrainConfig


def check_models(config: TrainConfig) -> int | None:
    """Hold a configuration to what its models can do, by their configurations alone.

    Returns:
        How many positions the student has; None for no limit.

    Raises:
        ValueError: more terms, latents or tokens than the models have room for.
        OSError: a model that cannot be read.
    """
    student = load_model_config(config.model_name)
    positions = positions_of(student)
    if config.student == "latent":
        check_latents_fit(config.model_name, positions, config.target_len)
    check_answers(config, positions)
    if config.map_rank is not None and config.teacher_name is not None:
        check_rank(config, load_model_config(config.teacher_name), student)
    elif config.map_rank is not None:
        check_rank(config, student, student)
    return positions


def check_rank(config: TrainConfig, teacher: Any, student: Any) -> None:
    """Hold `--map_rank` to the heads of two models.

    Args:
        config: the run's configuration.
        teacher: configuration of the model.
        student: the same.

    Raises:
        ValueError: more terms than make every map.
    """
    if config.map_rank is None:
        return
    check_map_rank_fits(
        config.map_rank,
        CacheGeometry.from_config(teacher),
        CacheGeometry.from_config(student),
        share_dim_proj=config.map_proj_share_dim,
        align_direction=config.align_direction,
    )


def check_answers(
    config: TrainConfig, positions: int | None, samples: Sequence[Encoded] = ()
) -> None:
    """Hold `--max_new_tokens` to the positions that the student has, where it is evaluated.

    Args:
        config: the run's configuration.
        positions: of the student; None: no limit.
        samples: what it is evaluated on; none where they are not read yet.

    Raises:
        ValueError: answers that would not fit.
    """
    if config.eval_size:
        check_answers_fit(
            config.model_name,
            positions,
            config.target_len if config.student == "latent" else None,
            config.max_new_tokens,
            [(sample.id, len(sample.prompt_ids)) for sample in samples],
        )


def num_update_steps(config: TrainConfig, num_samples: int) -> int:
    """Optimiser steps of a run on one device.

    Example:
        >>> num_update_steps(TrainConfig(batch_size=4, epochs=2), 10)
        6
    """
    if config.max_steps > 0:
        return config.max_steps
    batches = math.ceil(num_samples / config.batch_size)
    return math.ceil(config.epochs * math.ceil(batches / config.gradient_accumulation_steps))
