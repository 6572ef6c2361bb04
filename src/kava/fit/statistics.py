"""The statistics of paired traces that calibration fits to, collected in one pass.

Every valid position has an input, a target and, for the wrong-sample control, the target that
another sample has at the same position of its text. Moments of all positions are kept. Cosines do
not follow from moments, so a bounded number of evenly spread positions is kept for them.

Shapes: B batch, L layers of the student, H heads, T positions, D head dim; C = H·D coordinates,
heads outermost; N valid positions of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from kava.align.aligner import MapProjectionAligner
from kava.align.geometry import HeadDims
from kava.align.heads.layerwise import LayerwiseProjector
from kava.align.linear_maps import mix_layers
from kava.fit.moments import PairStatistics
from kava.names import TEACHER_TO_STUDENT
from kava.trace import KVTrace

SAMPLED_POSITIONS = 2048
"""The largest number of positions that are kept."""


class TracePair(NamedTuple):
    """The traces of both models over one batch of texts, position by position."""

    teacher: KVTrace
    """[B, L_t, H_t, T, D_t], at the positions of the student's tokens."""
    student: KVTrace
    """[B, L_s, H_s, T, D_s]."""
    mask: Tensor
    """[B, T] bool: the positions to compare; False at padding."""


class SampledPositions(NamedTuple):
    """Inputs and targets of some positions."""

    x: Tensor
    """[L, N, C_in]."""
    y: Tensor
    """[L, N, C_out]."""


class PairSet(NamedTuple):
    """Moments of all pairs of inputs and targets, and a sample of the pairs."""

    statistics: PairStatistics
    positions: SampledPositions


class FitStatistics:
    """The statistics of keys, values or queries, with their own and with wrong-sample targets.

    Args:
        num_layers: L.
        shape: heads and head dims of inputs and targets.
        device: where the traces are.
    """

    def __init__(self, num_layers: int, shape: HeadDims, device: torch.device) -> None:
        self.dim_out = shape.dim_out
        self.statistics = PairStatistics(num_layers, shape.dim_in, 2 * shape.dim_out, device)
        self.last_sample: Tensor | None = None
        self.sampled: list[SampledPositions] = []
        self.stride = 1
        self.offset = 0

    def own_sample(self) -> PairSet:
        """Inputs with their own targets."""
        return self._outputs(slice(self.dim_out))

    def wrong_sample(self) -> PairSet:
        """Inputs with the targets of another sample."""
        return self._outputs(slice(self.dim_out, None))

    def _outputs(self, coordinates: slice) -> PairSet:
        x_LNC, y_LNC = (torch.cat(parts, dim=1) for parts in zip(*self.sampled))
        return PairSet(
            self.statistics.outputs(coordinates), SampledPositions(x_LNC, y_LNC[..., coordinates])
        )

    def update(self, x_LNC: Tensor, y_LNC: Tensor, lengths_B: Tensor) -> None:
        """Add a batch: the valid positions of its samples end to end, and how many each has."""
        wrong_LNC = self._of_other_samples(y_LNC, lengths_B)
        self.last_sample = y_LNC[:, -int(lengths_B[-1]) :]
        rows = SampledPositions(x_LNC, torch.cat([y_LNC, wrong_LNC], dim=2))
        self.statistics.update(rows.x.transpose(0, 1), rows.y.transpose(0, 1))
        self._sample(rows)

    def _of_other_samples(self, y_LNC: Tensor, lengths_B: Tensor) -> Tensor:
        """For each position the target of the previous sample at the same position, cyclically."""
        if len(lengths_B) == 1:
            if self.last_sample is None:
                raise ValueError(
                    "the first batch holds one sample only, and the wrong-sample control needs "
                    "another to pair it with; raise --calibration_samples, or the batch size"
                )
            places = torch.arange(y_LNC.shape[1], device=y_LNC.device)
            return self.last_sample[:, places % self.last_sample.shape[1]]
        starts_B = lengths_B.cumsum(0) - lengths_B
        places = torch.arange(y_LNC.shape[1], device=y_LNC.device)
        places = places - starts_B.repeat_interleave(lengths_B)
        others_B = lengths_B.roll(1).repeat_interleave(lengths_B)
        return y_LNC[:, starts_B.roll(1).repeat_interleave(lengths_B) + places % others_B]

    def _sample(self, rows: SampledPositions) -> None:
        """Keep every `stride`-th position; double the stride whenever there are too many."""
        count = rows.x.shape[1]
        kept = slice(self.offset, None, self.stride)
        self.sampled.append(SampledPositions(*(part[:, kept].clone() for part in rows)))
        self.offset = (self.offset - count) % self.stride
        if sum(some.x.shape[1] for some in self.sampled) > SAMPLED_POSITIONS:
            joined = SampledPositions(*(torch.cat(parts, dim=1) for parts in zip(*self.sampled)))
            total = joined.x.shape[1]
            self.sampled = [SampledPositions(*(part[:, ::2].clone() for part in joined))]
            self.offset += self.stride * (total % 2)
            self.stride *= 2


def _rows(x_BLHTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The valid positions of all samples, [L, N, C]."""
    return x_BLHTD.permute(1, 0, 3, 2, 4)[:, mask_BT].flatten(2)


def collect_statistics(
    aligner: MapProjectionAligner, pairs: Iterable[TracePair]
) -> dict[str, FitStatistics]:
    """Collect the statistics of all pairs, in one pass.

    Args:
        aligner: made with `per_layer=True`; says which way the maps go, and mixes layers.
        pairs: batches of paired traces.

    Returns:
        The statistics of keys, of values, and of queries if the traces have them.

    Raises:
        ValueError: an aligner without maps per layer; traces of another geometry than its, or of
            different positions.
    """
    collected: dict[str, FitStatistics] = {}
    for pair in pairs:
        add_pair(collected, aligner, pair)
    return collected


@torch.no_grad()
def add_pair(
    collected: dict[str, FitStatistics], aligner: MapProjectionAligner, pair: TracePair
) -> None:
    """Add one batch; see `collect_statistics`."""
    projectors = layerwise_projectors(aligner)
    mask_BT = pair.mask.bool()
    lengths_B = mask_BT.sum(1)
    lengths_B = lengths_B[lengths_B > 0]
    if not len(lengths_B):
        return
    for part, projector in projectors.items():
        theirs, ours = getattr(pair.teacher, part), getattr(pair.student, part)
        if theirs is None or ours is None:
            continue
        _check_pair(aligner, part, theirs, ours, mask_BT)
        mixed_LNC = _rows(mix_layers(theirs, aligner.layer_rows), mask_BT)
        own_LNC = _rows(ours, mask_BT)
        to_student = aligner.direction == TEACHER_TO_STUDENT
        x_LNC, y_LNC = (mixed_LNC, own_LNC) if to_student else (own_LNC, mixed_LNC)
        if part not in collected:
            collected[part] = FitStatistics(len(x_LNC), head_dims(projector), x_LNC.device)
        collected[part].update(x_LNC, y_LNC, lengths_B)


def layerwise_projectors(aligner: MapProjectionAligner) -> dict[str, LayerwiseProjector]:
    """The maps of keys, values and queries that least squares can fit.

    Raises:
        ValueError: an aligner without any.
    """
    projectors = {
        name: projector
        for name, projector in aligner.projectors().items()
        if isinstance(projector, LayerwiseProjector)
    }
    if not projectors:
        raise ValueError(
            f"an aligner of mode={aligner.mode!r} without a map for each layer has nothing that "
            f"calibration can fit; make it with per_layer=True"
        )
    return projectors


def _check_pair(
    aligner: MapProjectionAligner, part: str, theirs: Tensor, ours: Tensor, mask_BT: Tensor
) -> None:
    B, T = mask_BT.shape
    for side, geometry, trace in (
        ("teacher", aligner.teacher, theirs),
        ("student", aligner.student, ours),
    ):
        heads = geometry.num_query_heads if part == "queries" else geometry.num_heads
        expected = [B, geometry.num_layers, heads, T, geometry.head_dim]
        if list(trace.shape) != expected:
            raise ValueError(
                f"the {side}'s {part} have shape {list(trace.shape)}, but aligner and mask need "
                f"{expected} (batch, layers, heads, positions, head dim)"
            )


def head_dims(projector: LayerwiseProjector) -> HeadDims:
    """The heads and head dims between which a projector maps."""
    return HeadDims(
        projector.num_heads_in,
        projector.num_heads_out,
        projector.head_dim_in,
        projector.head_dim_out,
    )
