"""Which of several teachers is listened to: what is recorded of it, and what it means.

Shapes: B batch, L layers, N teachers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kava.data.records import Record

ALONE = 0.95
"""A router whose mean share of one teacher is at least this listens to it alone."""
WORSE = 0.1
"""Nats by which a routed target must be read worse than one teacher's to be called easy."""


class Routing(NamedTuple):
    """How much of each teacher was taken for the samples of one batch."""

    ids: Sequence[str]
    weights_BLN: Tensor
    """Mean over slots; 0 for a teacher that is not there."""
    agreement_BL: Tensor | None = None
    """Mean cosine between the pulls of the teachers."""
    chosen_B: Tensor | None = None
    """The teacher that the data name."""
    answer_ce_B: Tensor | None = None
    """Cross-entropy of the answer, summed over its tokens, read from the fused target."""
    answer_ce_BN: Tensor | None = None
    """The same, read from each teacher's target alone; NaN of one that is not there."""


class RoutingCounts:
    """Routing over the batches of an evaluation.

    Args:
        labels: of the teachers.
    """

    def __init__(self, labels: Sequence[str]):
        self.labels = labels
        self._batches: list[Routing] = []

    def look(self, routing: Routing | None) -> None:
        """Take one batch."""
        if routing is not None:
            self._batches.append(routing)

    def metrics(self, groups: Mapping[str, str]) -> dict[str, float]:
        """Shares by teacher, layer and group, conflict by layer, and what answers can be read.

        Args:
            groups: sample id → the kind of the sample, where it is known.
        """
        if not self._batches:
            return {}
        weights_BLN = torch.cat([one.weights_BLN for one in self._batches]).float().cpu()
        shares_BN = weights_BLN.mean(1)
        found: dict[str, float] = {}
        for n, label in enumerate(self.labels):
            found[f"route_{label}"] = float(shares_BN[:, n].mean())
        if weights_BLN.shape[1] > 1:
            for layer, shares_N in enumerate(weights_BLN.mean(0).tolist()):
                for label, share in zip(self.labels, shares_N):
                    found[f"route_{label}_layer_{layer}"] = share
        rows: dict[str, list[int]] = defaultdict(list)
        ids = [name for one in self._batches for name in one.ids]
        for row, name in enumerate(ids):
            if name in groups:
                rows[groups[name]].append(row)
        for group, members in sorted(rows.items()):
            for label, share in zip(self.labels, shares_BN[members].mean(0).tolist()):
                found[f"route_{label}_group_{group}"] = share
        found["route_entropy"] = float(torch.special.entr(shares_BN).sum(-1).mean())
        found |= self._agreement()
        found |= self._named(shares_BN)
        found |= self._answers()
        return found

    def _agreement(self) -> dict[str, float]:
        parts = [one.agreement_BL for one in self._batches if one.agreement_BL is not None]
        if not parts:
            return {}
        layers = torch.cat(parts).float().mean(0).tolist()
        return {f"teachers_cos_layer_{layer}": cosine for layer, cosine in enumerate(layers)}

    def _named(self, shares_BN: Tensor) -> dict[str, float]:
        parts = [one.chosen_B for one in self._batches if one.chosen_B is not None]
        if len(parts) < len(self._batches):
            return {}
        named_B = torch.cat(parts).cpu()
        return {
            "route_right": float((shares_BN.argmax(-1) == named_B).float().mean()),
            "route_on_named": float(shares_BN.gather(1, named_B[:, None]).mean()),
        }

    def _answers(self) -> dict[str, float]:
        fused = [one.answer_ce_B for one in self._batches if one.answer_ce_B is not None]
        alone = [one.answer_ce_BN for one in self._batches if one.answer_ce_BN is not None]
        if not fused or not alone:
            return {}
        found = {"route_answer_ce": float(torch.cat(fused).mean())}
        for label, ce in zip(self.labels, torch.cat(alone).nanmean(0).tolist()):
            found[f"route_answer_ce_{label}"] = ce
        return found


def over_slots(weights_BLMN: Tensor, filled_BM: Tensor) -> Tensor:
    """The mean weight of each teacher over the slots that are filled, [B, L, N]."""
    total_BLN = (weights_BLMN * filled_BM[:, None, :, None]).sum(2)
    return total_BLN / filled_BM.sum(1).clamp(min=1)[:, None, None]


def groups_of(records: Sequence[Record]) -> dict[str, str]:
    """Sample id → its kind: the teacher that the data name, or the number of written steps."""
    found = {}
    for record in records:
        kind = record.meta.get("teacher_id")
        steps = record.meta.get("num_steps")
        if kind is None and steps is not None:
            kind = f"{steps}_steps"
        if kind is not None:
            found[record.id] = str(kind)
    return found


def routing_verdict(
    metrics: Mapping[str, float], labels: Sequence[str], learned: bool
) -> str | None:
    """What is wrong with a routing, in one sentence; None where nothing is.

    Args:
        metrics: of an evaluation, with their prefix `eval_`.
        labels: of the teachers.
        learned: whether a router is trained; given weights are as they were asked for.
    """
    shares = {label: metrics.get(f"eval_route_{label}", 0.0) for label in labels}
    most = max(shares, key=lambda label: shares[label])
    said = []
    if learned and shares[most] >= ALONE:
        said.append(f"the router listens to {most} alone ({100 * shares[most]:.1f} %)")
    alone = {
        label: metrics[f"eval_route_answer_ce_{label}"]
        for label in labels
        if f"eval_route_answer_ce_{label}" in metrics
    }
    if learned and alone:
        best = min(alone, key=lambda label: alone[label])
        routed = metrics["eval_route_answer_ce"]
        if routed > alone[best] + WORSE:
            said.append(
                f"the student reads the answer better from {best} alone (cross-entropy "
                f"{alone[best]:.2f}) than from the routed target ({routed:.2f}): the router takes "
                f"what is easy to match, not what is right"
            )
    return "; ".join(said) or None
