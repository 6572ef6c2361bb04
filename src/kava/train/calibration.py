"""Fitting the aligner before training, on texts that teacher and student both read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kava.align.calibrate import CalibrationReport, calibrate
from kava.data.collate import Batch, Collator
from kava.data.encode import Encoded
from kava.pairs import TracePair, paired_traces
from kava.trace import Segment
from kava.train.config import TrainConfig
from kava.train.objective import Distiller

BATCH_SIZE = 64
HELD_OUT_SHARE = 4
"""Every fourth calibration sample is set apart to judge the maps."""


def calibrate_aligner(
    distiller: Distiller, config: TrainConfig, samples: Sequence[Encoded], collate: Collator
) -> CalibrationReport:
    """Fit the distiller's aligner in place, on the reasoning of its training samples.

    Both models read the written text: the student as it is before training. What is fitted is
    what will be compared: keys in the configured key space, at the student's tokens.

    Args:
        distiller: student, aligner and teacher.
        config: the run's configuration.
        samples: the training samples; the first `calibration_samples` of them are read.
        collate: makes batches of them.

    Raises:
        ValueError: too few samples for the maps.
    """
    chosen = samples[: config.calibration_samples]
    parts = [
        [sample for i, sample in enumerate(chosen) if (i % HELD_OUT_SHARE == 0) == held_out]
        for held_out in (False, True)
    ]
    teacher = distiller.teacher if distiller.teacher is not None else distiller.base
    # positions of a text have no common tokens under "none": hard ones stand in for them
    tokens = "soft" if config.token_alignment == "soft" else "hard"

    def batches(part: Sequence[Encoded]) -> Iterator[Batch]:
        for start in range(0, len(part), BATCH_SIZE):
            yield collate(part[start : start + BATCH_SIZE])

    def pairs(part: Sequence[Encoded]) -> Iterator[TracePair]:
        return paired_traces(
            teacher,
            distiller.base,
            batches(part),
            token_alignment=tokens,
            queries=distiller.queries,
            rotated=config.key_space == "rotated",
            segments=(int(Segment.REASONING),),
        )

    training = distiller.training
    distiller.eval()
    report = calibrate(
        distiller.map_aligner, pairs(parts[0]), pairs(parts[1]), rank=_rank(config)
    )
    distiller.train(training)
    distiller.map_aligner.requires_grad_(config.trains_aligner)
    return report


def _rank(config: TrainConfig) -> int | str | None:
    if config.map_rank is None or config.map_rank == "auto":
        return config.map_rank
    return int(config.map_rank)
