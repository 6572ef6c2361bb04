"""Fitting the aligner before training, on the texts that the student will learn from."""

from __future__ import annotations

from collections.abc import Sequence

from kava.data.collate import Collator
from kava.data.encoded import Encoded
from kava.fit.aligner import CalibrationReport
from kava.fit.models import calibrate_on
from kava.train.config import TrainConfig
from kava.train.objective import Distiller


def calibrate_aligner(
    distiller: Distiller, config: TrainConfig, samples: Sequence[Encoded], collate: Collator
) -> CalibrationReport:
    """Fit the distiller's aligner in place, on the reasoning of its training samples.

    Both models read the written text, the student with its weights from before training. The maps
    are fitted on what the loss compares: keys in the configured key space, at the student's tokens.

    Args:
        distiller: student, aligner and teacher.
        config: the run's configuration.
        samples: the training samples; the first `calibration_samples` of them are read.
        collate: turns samples into batches.

    Raises:
        ValueError: too few samples for the maps.
    """
    training = distiller.training
    distiller.eval()
    report = calibrate_on(
        samples[: config.calibration_samples],
        distiller.teacher if distiller.teacher is not None else distiller.base,
        distiller.base,
        distiller.map_aligner,
        collate,
        rank=_rank(config),
        # under "none" the texts share no token positions: use the hard alignment for the fit
        token_alignment="soft" if config.token_alignment == "soft" else "hard",
        rotated=config.key_space == "rotated",
        queries=distiller.queries,
    )
    distiller.train(training)
    distiller.map_aligner.requires_grad_(config.trains_aligner)
    return report


def _rank(config: TrainConfig) -> int | str | None:
    if config.map_rank is None or config.map_rank == "auto":
        return config.map_rank
    return int(config.map_rank)
