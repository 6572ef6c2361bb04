"""The losses over the held-out samples, and what an evaluation looks at beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.train.guard import RunGuard
from kava.train.objective import Distiller
from kava.train.probes import CacheLikeness, attention_entropy
from kava.train.reading import ReadingCounts, gradient_shares


@torch.no_grad()
def held_out_losses(
    distiller: Distiller,
    samples: Sequence[Encoded],
    guard: RunGuard,
    *,
    collate: Collator,
    batch_size: int,
    prepare: Callable[[Batch], Batch],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """The terms of the loss over the held-out samples, CKA with the target, entropy of attention.

    Args:
        distiller: what is trained.
        samples: the held-out ones, in order.
        guard: takes the evidence of every batch; it is left to say what it means.
        collate: makes batches.
        batch_size: samples at a time.
        prepare: brings a batch to the device.
        autocast: makes the context of the forward passes.

    Returns:
        Their names with `eval_` before them.
    """
    # in the wrong-sample control every batch borrows from the one before, whatever their size
    collate = replace(collate, neighbours=True)
    totals: dict[str, float] = defaultdict(float)
    loader: DataLoader[Any] = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=collate,
    )
    likeness, readings, entropy = CacheLikeness(), ReadingCounts(), None

    def forward(batch: Batch) -> Any:
        with autocast():
            return distiller(batch, diagnose=True, before=readings.before)

    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    # of as many samples as fit a training step, whatever the size of evaluation's batches
    first = samples[: distiller.settings.batch_size]
    with torch.enable_grad(), autocast():
        shares = gradient_shares(distiller(prepare(collate(first))).weighted, trained)
    metrics = {f"eval_gradient_{name}": share for name, share in shares.items()}
    last = forward(prepare(collate([samples[-1]]))) if len(samples) > batch_size else None
    guard.begin(last)
    readings.borrow_from(last and last.reading)
    for index, batch in enumerate(map(prepare, loader)):
        found, size = forward(batch), len(batch["ids"])
        for name, value in {"loss": found.loss, **found.metrics}.items():
            totals[name] += float(value) * size
        guard.look(found)
        likeness.look(found.student, found.target and found.target.trace)
        readings.look(found.reading)
        if index == 0:
            entropy = attention_entropy(distiller.student, batch)
    metrics.update({f"eval_{name}": total / len(samples) for name, total in totals.items()})
    metrics.update({f"eval_{name}": value for name, value in likeness.metrics().items()})
    metrics.update({f"eval_reading_{name}": x for name, x in readings.accuracy().items()})
    if entropy is not None:
        metrics["eval_attention_entropy"] = entropy
    return metrics
