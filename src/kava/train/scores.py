"""Scores for evictions that need the teacher, computed once per sample before training.

Shapes: R reasoning tokens of a sample, T_s/T_t tokens of the student's and the teacher's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from kava.data.encoded import Encoded
from kava.data.records import Record, Template
from kava.eviction import EVICTIONS
from kava.importance import score_samples
from kava.models.devices import choose_device
from kava.store.teacher import StoredTeacher
from kava.train.config import TrainConfig
from kava.train.teaching import Teacher

FILE_NAME = "kv_scores.safetensors"


def needs_scores(config: TrainConfig) -> bool:
    """Whether a run's eviction needs scores of the teacher; stored targets were kept by them."""
    if config.store and config.store_tier == "targets":
        return False
    return config.kv_weight > 0 and EVICTIONS[config.kv_method].needs_scores


def scores_path(config: TrainConfig) -> Path:
    """The file of a run's scores: `--kv_scores_path`, or a file in the output folder."""
    return Path(config.kv_scores_path or Path(config.output_dir) / FILE_NAME)


def with_scores(
    config: TrainConfig,
    teacher: Teacher,
    samples: Sequence[Encoded],
    records: Sequence[Record],
    template: Template,
    path: str | Path | None = None,
) -> list[Encoded]:
    """Add the teacher's scores of the reasoning tokens to samples.

    In self-distillation the student before training is the teacher.

    Args:
        config: the run's configuration.
        teacher: the model that computes the scores; of a stored one `path` must hold them.
        samples: training and evaluation samples.
        records: the records of the samples, matched by id.
        template: the template that turned records into text.
        path: file of scores to read; missing scores are computed and added. None stores nothing.

    Returns:
        the samples with `scores`; if the teacher's own positions are kept, the scores are on the
        teacher's text.

    Raises:
        ValueError: the file was made by another teacher or method.
        OSError: the file cannot be written.

    Example:
        >>> scored = with_scores(config, teacher, data.train, data.train_records, data.template)
    """
    with _placed(teacher, config):
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
    return [_attach(sample, row_R, config.token_alignment) for sample, row_R in zip(samples, rows)]


@contextmanager
def _placed(teacher: Teacher, config: TrainConfig) -> Iterator[None]:
    """Have a model compute on the run's device inside the block."""
    if isinstance(teacher, StoredTeacher):
        yield
        return
    device = teacher.device
    teacher.to(choose_device(config.device))  # type: ignore[arg-type]
    try:
        yield
    finally:
        teacher.to(device)  # type: ignore[arg-type]


def _attach(sample: Encoded, scores_R: np.ndarray, token_alignment: str) -> Encoded:
    """The sample with scores for the tokens that eviction chooses from."""
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
        # as for keys and values: the mean over the teacher's tokens under each student token
        shares, covered = text.alignment.weights, text.alignment.indices
        ours_T = np.add.reduceat(shares * theirs_T[covered], text.alignment.indptr[:-1])
    own = slice(sample.prompt_length, sample.answer_start)
    return replace(sample, scores=ours_T[own].astype(np.float32))
