"""Fitting an aligner to two models, on the reasoning of texts that both read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel

from kava.align import MapProjectionAligner
from kava.data.collate import Collator
from kava.data.encoded import Encoded
from kava.fit.aligner import calibrate
from kava.fit.paired_traces import paired_traces
from kava.fit.report import CalibrationReport
from kava.fit.statistics import TracePair
from kava.models.traceable import check_traceable
from kava.store.teacher import StoredTeacher
from kava.trace import Segment

HELD_OUT_EVERY = 4
"""One in this many samples is held out, to judge the maps."""


def split_held_out(samples: Sequence[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """Split samples into those that the maps are fitted to and the held-out ones.

    Example:
        >>> fitted, judging = split_held_out(samples)
        >>> len(fitted), len(judging)
        (750, 250)
    """
    parts: tuple[list[Encoded], list[Encoded]] = ([], [])
    for index, sample in enumerate(samples):
        parts[index % HELD_OUT_EVERY == 0].append(sample)
    return parts


def calibrate_on(
    samples: Sequence[Encoded],
    teacher: PreTrainedModel | StoredTeacher,
    student: PreTrainedModel,
    aligner: MapProjectionAligner,
    collate: Collator,
    *,
    rank: int | str | None = None,
    token_alignment: str = "hard",
    rotated: bool = False,
    queries: bool = False,
    batch_size: int = 64,
    chunk: int | None = None,
) -> CalibrationReport:
    """Fit an aligner in place, on the reasoning of samples that both models read.

    Args:
        samples: one in `HELD_OUT_EVERY` judges the maps.
        teacher: reads its own tokens where the samples have them; of a stored one the samples
            name their whole texts (`StoredTeacher.mark_whole`).
        student: as it is before training.
        aligner: between the two, made with `per_layer=True`.
        collate: makes batches of the samples.
        rank: as in `kava.fit.aligner`.
        token_alignment: "hard" or "soft", where the tokenizers differ.
        rotated: fit keys and queries as they are cached; else their rotation is taken out.
        queries: fit maps of queries too.
        batch_size: samples of a forward.
        chunk: columns of a forward; None: whole texts.

    Raises:
        ValueError: a model without keys and values in every layer, or too few samples.

    Example:
        >>> print(calibrate_on(samples, teacher, student, aligner, Collator(0), rank="auto"))
    """
    for model in (teacher, student):
        if not isinstance(model, StoredTeacher):
            check_traceable(model)

    def pairs(part: Sequence[Encoded]) -> Iterator[TracePair]:
        return paired_traces(
            teacher,
            student,
            (collate(part[at : at + batch_size]) for at in range(0, len(part), batch_size)),
            token_alignment=token_alignment,
            queries=queries,
            rotated=rotated,
            segments=(int(Segment.REASONING),),
            chunk=chunk,
        )

    fitted, judging = split_held_out(samples)
    return calibrate(aligner, pairs(fitted), pairs(judging), rank=rank)
