"""Fitting the encoders of a shared space before training, on texts that all models read.

Shapes: B samples, T text columns, R positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kava.align import align_trace
from kava.data.collate import Collator
from kava.data.encoded import Encoded
from kava.fit.models import split_held_out
from kava.fit.paired_traces import paired_traces
from kava.format import columns
from kava.shared import Pairs, SpaceFit, fit_space
from kava.shared.encoder import features_of
from kava.trace import Segment
from kava.train.calibration import samples_to_fit
from kava.train.config import TrainConfig
from kava.train.objective import Distiller
from kava.train.shared_space import widened
from kava.train.teacher_names import teachers_of

MOST_ROWS = 8192
"""Positions that a space is fitted to, at most, of each teacher."""
MOST_POSITIONS = 16
"""Of one sample, at most: evenly spread over its reasoning."""
BATCH = 64


@torch.no_grad()
def fit_shared_space(
    distiller: Distiller, config: TrainConfig, samples: Sequence[Encoded], collate: Collator
) -> SpaceFit:
    """Fit the distiller's space in place, on the reasoning of its training samples.

    Teachers and student read the written texts, the student with its weights from before training.
    With `--shared_space_fit joint` the encoders keep their start, and only their features are
    standardised.

    Args:
        distiller: student, aligners that are fitted, teachers and space.
        config: the run's configuration.
        samples: the training samples, of which the first `calibration_samples` are read; one in
            four judges.
        collate: makes batches.

    Raises:
        ValueError: too few samples.
    """
    assert distiller.space is not None
    training = distiller.training
    distiller.eval()
    fitted: list[Pairs] = []
    judging: list[Pairs] = []
    for n in range(len(distiller.aligners)):
        own = samples_to_fit(samples, distiller.readers[n], n, config.calibration_samples)
        with distiller.resting.awake(distiller.readers[n]):
            for part, into in zip(split_held_out(own), (fitted, judging)):
                into.append(_pairs(distiller, n, part, collate.for_side(n)))
    steps = {"num_steps": 0} if config.trains_space else {}
    found = fit_space(
        distiller.space, fitted, judging, loss=config.shared_space_loss, seed=config.seed, **steps
    )
    distiller.train(training)
    return found


def _pairs(distiller: Distiller, n: int, samples: Sequence[Encoded], collate: Collator) -> Pairs:
    """What the n-th teacher and the student cache at the same tokens of the same texts."""
    if not samples:
        raise ValueError(
            "a shared space is fitted to two samples with reasoning or more, and judged on as "
            "many; raise --calibration_samples"
        )
    parts: list[Pairs] = []
    num_rows = 0
    for pair in paired_traces(
        distiller.readers[n],
        distiller.base,
        (collate(samples[at : at + BATCH]) for at in range(0, len(samples), BATCH)),
        # under "none" the texts share no positions: use the hard alignment for the fit
        token_alignment="soft" if distiller.settings.token_alignment == "soft" else "hard",
        segments=(int(Segment.REASONING),),
        chunk=distiller.settings.capture_chunk,
    ):
        places, mask = spread_columns(pair.mask)
        aligned = align_trace(distiller.aligners[n], replace(pair.teacher, mask=pair.mask))
        theirs, ours = (
            features_of(distiller.matching.select(trace.gather(places, mask=mask)))
            for trace in (aligned, pair.student)
        )
        parts.append(Pairs(theirs, ours, mask))
        num_rows += int(mask.sum())
        if num_rows >= MOST_ROWS:
            break
    width = max(part.mask.shape[1] for part in parts)
    return Pairs(*(torch.cat([widened(x, width) for x in same]) for same in zip(*parts)))


def spread_columns(mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """At most `MOST_POSITIONS` valid columns of each sample, evenly spread.

    Returns:
        the columns [B, R], and which of them are there, [B, R] bool.

    Example:
        >>> spread_columns(torch.tensor([[False, True, True], [False, False, True]]))
        (tensor([[1, 2], [2, 0]]), tensor([[ True,  True], [ True, False]]))
    """
    counts_B1 = mask_BT.sum(1, keepdim=True)
    R = max(min(int(counts_B1.max()), MOST_POSITIONS), 1)
    taken_B1 = counts_B1.clamp(max=R)
    slots_R = torch.arange(R, device=mask_BT.device)
    # the r-th of the taken ones, among the valid columns; behind them any other
    ranks_BR = torch.where(
        slots_R < taken_B1, slots_R * counts_B1 // taken_B1.clamp(min=1), counts_B1 + slots_R
    )
    order_BT = torch.argsort((~mask_BT).long(), dim=1, stable=True)
    ranks_BR = ranks_BR.clamp(max=mask_BT.shape[1] - 1)
    return order_BT.gather(1, ranks_BR), slots_R < taken_B1


def space_lines(config: TrainConfig, fit: SpaceFit) -> str:
    """How good a fitted space is, one row for each teacher."""
    rows: list[tuple[str, ...]] = [
        ("teacher", fit.loss, "wrong sample", "spread", "effective rank", "of the student")
    ]
    for one, report in zip(teachers_of(config), fit.reports):
        numbers = (report.own, report.wrong_sample, report.spread_teacher)
        ranks = (report.erank_teacher, report.erank_student)
        rows.append((one.label, *(f"{x:.3g}" for x in numbers), *(f"{x:.1f}" for x in ranks)))
    how = "not fitted" if config.trains_space else "fitted"
    return "\n".join(
        [
            f"shared space of {fit.dim} dimensions, {how}: {fit.num_positions:,} positions, judged "
            f"on {fit.num_held_out:,} others",
            *columns(rows, left=1),
            *dict.fromkeys(fit.verdicts()),
        ]
    )
