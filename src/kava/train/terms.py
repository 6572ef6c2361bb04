"""The terms of the loss: how they add up, and how each is logged."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kava.data.collate import IGNORED
from kava.shared import SharedSpace
from kava.trace import KVTrace
from kava.train.reading import Reading
from kava.train.routing import Routing
from kava.train.settings import Settings
from kava.train.shared_space import TERM, Points, points_of
from kava.train.target import Target


class Forward(NamedTuple):
    """One batch through teacher and student."""

    loss: Tensor
    metrics: dict[str, Tensor]
    """Detached terms, normalised as the loss is: they add up over micro-batches."""
    student: KVTrace | None
    target: Target | None
    weighted: dict[str, Tensor]
    """The terms as they are added up, with their gradients."""
    reading: Reading | None = None
    """Which samples are answered, and from what; None unless asked for."""
    routing: Routing | None = None
    """How much of each of several teachers was taken; None unless asked for."""
    points: Points | None = None
    """In the shared space; None without one."""


class Terms:
    """A weighted sum of loss terms, and each of them for the log."""

    def __init__(self) -> None:
        self.weighted: dict[str, Tensor] = {}
        self.metrics: dict[str, Tensor] = {}
        self.reading: Reading | None = None
        self.routing: Routing | None = None
        self.points: Points | None = None

    def add(self, name: str, weight: float, term: Tensor, share: float = 1.0) -> None:
        """Add a term.

        Args:
            name: as it is logged.
            weight: its flag's.
            term: a scalar.
            share: how much of the weight counts at this step; it is part of what is logged.
        """
        self.weighted[name] = weight * share * term
        self.metrics[name] = share * term.detach()

    def add_points(
        self,
        space: SharedSpace | None,
        config: Settings,
        student: KVTrace,
        target: Target,
        num_slots: Tensor | float,
    ) -> None:
        """Add the term between points of a shared space; nothing without one.

        Args:
            space: the encoders.
            config: the run's configuration.
            student: the student's trace at the slots, of the layers that are matched.
            target: what it is compared with.
            num_slots: pairs of sample and slot in the whole accumulated batch.
        """
        if space is None:
            return
        self.points = points_of(space, config, student, target.trace, target.points)
        loss = space.compare(*self.points, num_slots)
        self.add(TERM, config.shared_space_weight, loss)

    def faded(self, name: str, like: Tensor) -> None:
        """Log a term that no longer counts as 0; it is not computed."""
        self.metrics[name] = like.new_zeros((), dtype=torch.float32)

    def done(self, student: KVTrace | None = None, target: Target | None = None) -> Forward:
        """The sum."""
        loss = sum(self.weighted.values())
        assert isinstance(loss, Tensor)
        return Forward(
            loss=loss,
            metrics=self.metrics,
            student=student,
            target=target,
            weighted=self.weighted,
            reading=self.reading,
            routing=self.routing,
            points=self.points,
        )


def token_loss(logits: Tensor, labels: Tensor, num_tokens: Tensor | float) -> Tensor:
    """Cross-entropy [B, N, V] against [B, N], summed and divided by `num_tokens`, in float32."""
    total = cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / num_tokens


def with_all_parameters(found: Forward, module: nn.Module) -> Forward:
    """A loss on which every trained parameter beside the student's has a gradient, if only 0.

    Several processes wait for the gradient of each parameter (DDP), and a teacher that no sample of
    this batch is read by would leave none for its map.
    """
    beside = [p for name, p in module.named_parameters() if not name.startswith("student.")]
    nothing = [0.0 * p.sum() for p in beside if p.requires_grad]
    return found._replace(loss=sum(nothing, start=found.loss))
