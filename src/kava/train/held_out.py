"""The losses over the held-out samples, and what an evaluation looks at beside them.

A term is the sum over the items of the whole held-out set divided by their number, as in training
it is over an accumulated batch: answer tokens, pairs of sample and slot, samples, latents. So it
does not depend on how the set is cut into batches. The one exception is the CKA loss
(`--cka_weight`), a statistic of a batch: its mean over batches, each weighted by its slots, changes
with `--eval_batch_size`, and so does the loss that it is a part of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.train.guard import RunGuard
from kava.train.items import count_items
from kava.train.objective import Distiller
from kava.train.probes import ENTROPY_SAMPLES, CacheLikeness, attention_entropy, mean_entropy
from kava.train.reading import ReadingCounts, gradient_shares
from kava.train.routing import RoutingCounts
from kava.train.shared_space import SpaceCounts
from kava.train.teacher_names import teachers_of
from kava.train.terms import Forward
from kava.train.wrong_sample import compared_slots


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
    groups: Mapping[str, str] | None = None,
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
        groups: sample id → its kind, by which the routing of several teachers is told.

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
    config = distiller.settings
    counts, most_slots = [], 0
    for batch in loader:
        counts.append(count_items(batch, config))
        most_slots = max(most_slots, int(compared_slots(batch, config).max()))
    total = torch.tensor(counts).sum(0).float()
    readings = ReadingCounts()

    def forward(batch: Batch) -> Forward:
        with autocast():
            found: Forward = distiller(
                batch, total.to(batch["input_ids"].device), diagnose=True, before=readings.before
            )
        return found

    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    # of as many samples as fit a training step, whatever the size of evaluation's batches
    first = samples[: config.batch_size]
    with torch.enable_grad(), autocast():
        shares = gradient_shares(distiller(prepare(collate(first))).weighted, trained)
    last = forward(prepare(collate([samples[-1]]))) if len(samples) > 1 else None
    guard.begin(last, num_slots=config.target_len if config.student == "latent" else most_slots)
    readings.borrow_from(last and last.reading)
    likeness, entropies, unread = CacheLikeness(), [], ENTROPY_SAMPLES
    routings = RoutingCounts([one.label for one in teachers_of(config)])
    spaces = SpaceCounts(distiller.space)
    for batch in map(prepare, loader):
        found = forward(batch)
        for name, value in {"loss": found.loss, **found.metrics}.items():
            totals[name] += float(value)
        guard.look(found)
        likeness.look(found.student, None if found.target is None else found.target.trace)
        readings.look(found.reading)
        routings.look(found.routing)
        spaces.look(found.points)
        if unread > 0:
            entropies.append(attention_entropy(distiller.student, batch, unread))
            unread -= len(batch["ids"])
    metrics = {f"eval_{name}": value for name, value in totals.items()}
    metrics.update({f"eval_gradient_{name}": share for name, share in shares.items()})
    metrics.update({f"eval_{name}": value for name, value in likeness.metrics().items()})
    metrics.update({f"eval_reading_{name}": x for name, x in readings.accuracy().items()})
    metrics.update({f"eval_{name}": x for name, x in routings.metrics(groups or {}).items()})
    metrics.update({f"eval_{name}": x for name, x in spaces.metrics().items()})
    entropy = mean_entropy([part for part in entropies if part is not None])
    if entropy is not None:
        metrics["eval_attention_entropy"] = entropy
    return metrics


@torch.no_grad()
def losses_on_training_samples(
    distiller: Distiller,
    samples: Sequence[Encoded],
    *,
    collate: Collator,
    batch_size: int,
    prepare: Callable[[Batch], Batch],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """The terms of the loss on a part of the training samples, as on the held-out ones.

    Beside those on held-out samples they show the gap of generalisation: what is logged while
    training is of weights that move, and of samples that were not yet met.

    Args:
        distiller: what is trained, in evaluation mode.
        samples: those that are trained on; of them `--eval_train_size` are taken, evenly.
        collate: as `held_out_losses` takes it, and the rest too.
        batch_size: samples at a time.
        prepare: brings a batch to the device.
        autocast: makes the context of the forward passes.

    Returns:
        Their names with `eval_train_` before them.
    """
    config = distiller.settings
    size = min(config.eval_train_size, len(samples))
    taken = [samples[place * len(samples) // size] for place in range(size)]
    collate = replace(collate, neighbours=True)
    batches = [collate(taken[at : at + batch_size]) for at in range(0, size, batch_size)]
    total = torch.tensor([count_items(batch, config) for batch in batches]).sum(0).float()
    totals: dict[str, float] = defaultdict(float)
    for batch in map(prepare, batches):
        with autocast():
            found: Forward = distiller(batch, total.to(batch["input_ids"].device))
        for name, value in {"loss": found.loss, **found.metrics}.items():
            totals[name] += float(value)
    return {f"eval_train_{name}": value for name, value in totals.items()}
