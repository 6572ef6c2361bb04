"""Fitting the aligner before training, on the texts that the student will learn from."""

from __future__ import annotations

from collections.abc import Sequence

from kava.data.collate import Collator
from kava.data.encoded import Encoded
from kava.fit.aligner import CalibrationReport
from kava.fit.models import calibrate_on
from kava.store.teacher import StoredTeacher
from kava.train.config import TrainConfig
from kava.train.objective import Distiller
from kava.train.teaching import Teacher

_MEND = (
    "extract it with --include calibration and the run's --calibration_samples, or with --full; or "
    "fit nothing, by --aligner_fit frozen"
)


def calibrate_aligners(
    distiller: Distiller, config: TrainConfig, samples: Sequence[Encoded], collate: Collator
) -> tuple[CalibrationReport, ...]:
    """Fit the distiller's aligners in place, on the reasoning of its training samples.

    Both models read the written text, the student with its weights from before training. The maps
    are fitted on what the loss compares: keys in the configured key space, at the student's tokens.

    Args:
        distiller: student, aligner and teacher, or several of them.
        config: the run's configuration.
        samples: the training samples; the first `calibration_samples` of them are read, of those
            that a teacher reads.
        collate: turns samples into batches.

    Returns:
        One report for each teacher.

    Raises:
        ValueError: too few samples for the maps.
    """
    training = distiller.training
    distiller.eval()
    reports = []
    for n, (teacher, aligner) in enumerate(zip(distiller.readers, distiller.aligners)):
        with distiller.resting.awake(teacher):  # one at a time
            reports.append(
                calibrate_on(
                    samples_to_fit(samples, teacher, n, config.calibration_samples),
                    teacher,
                    distiller.base,
                    aligner,
                    collate.for_side(n),
                    rank=_rank(config),
                    # under "none" the texts share no positions: use the hard alignment for the fit
                    token_alignment="soft" if config.token_alignment == "soft" else "hard",
                    rotated=config.key_space == "rotated",
                    queries=distiller.queries,
                    chunk=config.capture_chunk,
                )
            )
        aligner.requires_grad_(config.trains_aligner)
    distiller.train(training)
    return tuple(reports)


def samples_to_fit(
    samples: Sequence[Encoded], teacher: Teacher, n: int, count: int
) -> list[Encoded]:
    """The samples that a teacher's map is fitted on, as the teacher reads them.

    Args:
        samples: the training samples with reasoning.
        teacher: a model, or a stored one, which must hold their whole texts.
        n: which of several teachers it is.
        count: how many of its samples, from the first on.

    Raises:
        ValueError: a text that a store lacks.
    """
    own = [sample for sample in samples if not sample.sides or sample.sides[n].present]
    read = [sample.as_read_by(n) for sample in own[:count]]
    return teacher.mark_whole(read, _MEND) if isinstance(teacher, StoredTeacher) else read


def _rank(config: TrainConfig) -> int | str | None:
    if config.map_rank is None or config.map_rank == "auto":
        return config.map_rank
    return int(config.map_rank)
