"""The training step with a clock at its stages, and what must hold of it.

It is the same `Distiller` as in training. Time inside a stage that another stage contains counts
for the inner one alone, so that the stages add up to the step.

Shapes: B batch, L layers, H key/value heads, T columns of the teacher's text, M slots, D head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kava.align import CacheGeometry
from kava.data.collate import Batch
from kava.errors import KavaError
from kava.profile.measure import StageClock
from kava.store.teacher import Kept
from kava.trace import KVTrace
from kava.train.objective import Distiller
from kava.train.target import Target, TargetBuilder
from kava.train.terms import Forward

STAGES = ("teacher forward", "compress", "align", "student forward", "losses", "backward")


class StagedTargetBuilder(TargetBuilder):
    """The target as in training, timed, with the teacher's trace kept for the checks."""

    clock: StageClock
    teacher_trace: KVTrace

    def __call__(
        self, trace: KVTrace | Kept, batch: Batch, before: KVTrace | Kept | None = None
    ) -> Target:
        """The target of a batch whose teacher left `trace` behind."""
        assert isinstance(trace, KVTrace)
        self.teacher_trace = trace
        with self.clock.stage("compress"):
            return super().__call__(trace, batch, before)


class StagedDistiller(Distiller):
    """The training step with a clock at its stages.

    Args:
        built: what is trained; its student, aligner and teacher are used as they are.
        clock: where the time goes.
    """

    def __init__(self, built: Distiller, clock: StageClock):
        super().__init__(built.student, built.settings, built.map_aligner, built.teacher)
        self.clock = clock
        builder = StagedTargetBuilder(
            built.settings, self.map_aligner, self.build_target.keeper.rotary
        )
        builder.clock = clock
        self.build_target: StagedTargetBuilder = builder
        clock.watch(self.student, "student forward")
        clock.watch(self.map_aligner, "align")

    def forward(self, batch: Batch, num_items: Tensor | None = None, **diagnosis: Any) -> Forward:
        """One batch through teacher and student; what no other stage claims are the losses."""
        with self.clock.stage("losses"):
            return super().forward(batch, num_items, **diagnosis)

    def _read_written(self, *args: Any) -> Any:
        with self.clock.stage("student forward"):
            return super()._read_written(*args)

    def _read_teacher(self, batch: Batch) -> Any:
        with self.clock.stage("teacher forward"):
            return super()._read_teacher(batch)


def check_step(distiller: StagedDistiller, forward: Forward) -> dict[str, list[int]]:
    """Hold a step to what must be true of it; returns the shapes on the way.

    Raises:
        KavaError: names what is not finite, does not fit, or gets no gradient.
    """
    teacher = distiller.build_target.teacher_trace
    assert forward.target is not None
    assert forward.student is not None
    target, student = forward.target.trace, forward.student
    layers, heads, _, dim = CacheGeometry.from_config(distiller.base.config)
    expected = [teacher.batch_size, layers, heads, distiller.settings.target_len, dim]
    for name, trace in (("target", target), ("student's cache", student)):
        if list(trace.keys.shape) != expected:
            raise KavaError(
                f"the {name} has shape {list(trace.keys.shape)}, but the student's "
                f"geometry asks for {expected}"
            )
    for name, trace in (
        ("teacher's cache", teacher),
        ("target after alignment", target),
        ("student's cache", student),
    ):
        check_finite(f"the {name}", trace.keys, trace.values)
    check_finite("the loss", forward.loss)
    gradients = [p.grad for p in distiller.student.parameters() if p.grad is not None]
    check_finite("a gradient of the student", *gradients)
    if not any(bool(gradient.any()) for gradient in gradients):
        raise KavaError("no gradient reaches the student: its loss does not depend on it")
    B, L, H, T, D = teacher.keys.shape
    return {
        "teacher's cache": [B, L, H, T, D],
        "kept positions": [B, L, H, forward.target.columns.shape[-1], D],
        "target": list(target.keys.shape),
        "student's cache": list(student.keys.shape),
    }


def check_finite(name: str, *parts: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        KavaError: `name` holds one.
    """
    for part in parts:
        if not bool(torch.isfinite(part).all()):
            raise KavaError(
                f"{name} is not finite (shape {list(part.shape)}): look at the model's weights, "
                f"or try --dtype float32"
            )
