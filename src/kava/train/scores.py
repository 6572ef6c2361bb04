"""Scores for the evictions that ask the teacher: computed before training, once per sample.

Shapes: R reasoning tokens of a sample, T_s/T_t tokens of the student's and the teacher's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from kava.data.encoded import Encoded
from kava.data.records import Record, Template
from kava.eviction import EVICTIONS
from kava.importance import score_samples
from kava.models.devices import choose_device
from kava.train.config import TrainConfig

FILE_NAME = "kv_scores.safetensors"


def needs_scores(config: TrainConfig) -> bool:
    """Whether a run's eviction is given scores, and reads them."""
    return config.kv_weight > 0 and EVICTIONS[config.kv_method].needs_scores


def scores_path(config: TrainConfig) -> Path:
    """Where a run keeps its scores: `--kv_scores_path`, or a file in the output folder."""
    return Path(config.kv_scores_path or Path(config.output_dir) / FILE_NAME)


def with_scores(
    config: TrainConfig,
    teacher: PreTrainedModel,
    samples: Sequence[Encoded],
    records: Sequence[Record],
    template: Template,
    path: str | Path | None = None,
) -> list[Encoded]:
    """Give samples the teacher's scores of their reasoning tokens.

    In self-distillation it is the student before training that is asked.

    Args:
        config: the run's configuration.
        teacher: whose scores they are.
        samples: of training and evaluation.
        records: those that the samples were made of; matched by id.
        template: how a record became text.
        path: a file that scores are read from; what it does not hold is computed and added. None
            keeps nothing.

    Returns:
        the samples with `scores`, or those of a teacher's own text with theirs where its
        positions are the ones that are kept.

    Raises:
        ValueError: a file of another teacher or method.
        OSError: the file cannot be written.

    Example:
        >>> scored = with_scores(config, teacher, data.train, data.train_records, data.template)
    """
    device = teacher.device
    teacher.to(choose_device(config.device))  # type: ignore[arg-type]
    try:
        rows = score_samples(
            teacher,
            [sample if sample.teacher is None else sample.teacher.encoded for sample in samples],
            records,
            template,
            method=config.kv_method,
            reach=config.knockout_reach,  # type: ignore[arg-type]
            path=path,
            progress=not config.no_progress,
        )
    finally:
        teacher.to(device)  # type: ignore[arg-type]
    return [_attach(sample, row_R, config.token_alignment) for sample, row_R in zip(samples, rows)]


def _attach(sample: Encoded, scores_R: np.ndarray, token_alignment: str) -> Encoded:
    """The sample with its scores, brought to the tokens of which some are kept."""
    text = sample.teacher
    if text is None:
        return replace(sample, scores=scores_R)
    if token_alignment == "none":
        return replace(
            sample, teacher=replace(text, encoded=replace(text.encoded, scores=scores_R))
        )
    theirs_T = np.zeros(len(text.encoded.input_ids), dtype=np.float32)
    theirs_T[text.encoded.prompt_length : text.encoded.answer_start] = scores_R
    ours_T = theirs_T[text.alignment.last]
    if token_alignment == "soft":
        # as the keys and values are: the mean over the teacher's tokens under the student's
        shares, covered = text.alignment.weights, text.alignment.indices
        ours_T = np.add.reduceat(shares * theirs_T[covered], text.alignment.indptr[:-1])
    own = slice(sample.prompt_length, sample.answer_start)
    return replace(sample, scores=ours_T[own].astype(np.float32))
