"""The shared space in training: how it is built, the points of a batch, and those of an evaluation.

Each teacher's aligned target and the student's own cache at the slots are encoded, and their points
compared, beside the KV loss or in its place (`kava.shared`). Teachers' points are mixed as the
fusion mixes their caches.

Shapes: B batch, M slots, Z dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kava.align import CacheGeometry
from kava.fuse import Fused, Offers
from kava.shared import SharedSpace, space_report
from kava.trace import KVTrace
from kava.train.settings import Settings
from kava.train.teacher_names import teachers_of

TERM = "shared_space"
"""Its name in metrics.jsonl."""


class Points(NamedTuple):
    """The points of one batch."""

    student: Tensor
    """[B, M, Z]."""
    teacher: Tensor
    """[B, M, Z]."""
    mask: Tensor
    """[B, M] bool."""


def build_space(
    config: Settings, student: CacheGeometry, layers: Sequence[int] | None
) -> SharedSpace | None:
    """The encoders of a run, initialised from its seed; None where it compares no points.

    Args:
        config: the run's configuration.
        student: the geometry of its cache.
        layers: those that are matched; None: all.
    """
    if not config.shared_space_weight:
        return None
    num_layers = student.num_layers if layers is None else len(layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        space = SharedSpace(
            max(len(teachers_of(config)), 1),
            (num_layers, student.num_heads, student.head_dim),
            dim=config.shared_space_dim,
            loss=config.shared_space_loss,
        )
    return space.requires_grad_(config.trains_space)


def points_of(
    space: SharedSpace,
    config: Settings,
    student: KVTrace,
    target: KVTrace,
    teacher_BMZ: Tensor | None,
) -> Points:
    """The points of a student's trace and of its target.

    Args:
        space: the encoders.
        config: the run's configuration.
        student: the selected layers, at the slots.
        target: the same of the target.
        teacher_BMZ: the teachers' points, where several teach; None: of the target itself.
    """
    if teacher_BMZ is None:
        teacher_BMZ = space.teachers[0](target)
    if not (config.trains_space or config.trains_target or config.trains_fusion):
        teacher_BMZ = teacher_BMZ.detach()
    mask_BM = student.valid_BT() & target.valid_BT()
    return Points(space.student(student), teacher_BMZ, mask_BM)


def mixed_points(
    space: SharedSpace | None,
    config: Settings,
    select: Callable[[KVTrace], KVTrace],
    offers: Offers,
    fused: Fused,
) -> Tensor | None:
    """[B, M, Z]: the points of several teachers, mixed as their caches are; None without a space.

    Args:
        space: the encoders.
        config: the run's configuration.
        select: takes the layers that are matched.
        offers: the teachers' targets.
        fused: what the fusion made of them.
    """
    if space is None:
        return None
    traces = [select(trace) for trace in offers.traces]
    if config.fusion == "union":
        return space.side_by_side(traces)
    weights = fused.weights if config.trains_fusion else fused.weights.detach()
    return space.mixed(traces, offers, weights)


class SpaceCounts:
    """The points of all batches of an evaluation.

    Args:
        space: the encoders; None where a run compares no points.
    """

    def __init__(self, space: SharedSpace | None):
        self.space = space
        self._batches: list[Points] = []

    def look(self, points: Points | None) -> None:
        """Take one batch."""
        if points is not None:
            self._batches.append(Points(*(part.detach().cpu() for part in points)))

    def metrics(self) -> dict[str, float]:
        """The numbers of `kava.shared.SpaceReport`; none without two samples that share a slot."""
        if self.space is None or not self._batches:
            return {}
        width = max(batch.mask.shape[1] for batch in self._batches)
        student, teacher, mask = (
            torch.cat([widened(part, width) for part in parts]) for parts in zip(*self._batches)
        )
        if len(mask) < 2 or not (mask & mask.roll(1, 0)).any():
            return {}
        report = space_report(student, teacher, mask, self.space.loss)
        return {f"{TERM}_{name}": number for name, number in report.metrics().items()}


def widened(part: Tensor, width: int) -> Tensor:
    """[B, M, …] with further slots of zeros."""
    missing = width - part.shape[1]
    return torch.cat([part, part.new_zeros(len(part), missing, *part.shape[2:])], dim=1)
