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
    likeness, entropy = CacheLikeness(), None

    def forward(batch: Batch) -> Any:
        with autocast():
            return distiller(batch)

    several = len(samples) > batch_size and distiller.settings.matches_cache
    guard.begin(forward(prepare(collate([samples[-1]]))) if several else None)
    for index, batch in enumerate(map(prepare, loader)):
        found, size = forward(batch), len(batch["ids"])
        for name, value in {"loss": found.loss, **found.metrics}.items():
            totals[name] += float(value) * size
        guard.look(found)
        likeness.look(found.student, found.target and found.target.trace)
        if index == 0:
            entropy = attention_entropy(distiller.student, batch)
    metrics = {f"eval_{name}": total / len(samples) for name, total in totals.items()}
    metrics.update({f"eval_{name}": value for name, value in likeness.metrics().items()})
    if entropy is not None:
        metrics["eval_attention_entropy"] = entropy
    return metrics
