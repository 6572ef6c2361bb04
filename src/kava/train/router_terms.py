"""The terms that train a router beside the student.

Shapes: B batch, A answer columns, V vocabulary, N teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kava.data.collate import IGNORED
from kava.student.latent import LatentStudent
from kava.trace import KVTrace
from kava.train.around import Around
from kava.train.reading import answer_from

MOMENTUM = 0.95
"""Of the running mean that is REINFORCE's baseline."""


def through_weights(loss: Tensor, weights: Tensor) -> Tensor:
    """A term of the value of `loss` whose gradient reaches what made `weights`, and nothing else.

    The student that reads the target stays as it is: no gradient of the router's term goes into its
    parameters.
    """
    if not torch.is_grad_enabled() or not weights.requires_grad:
        return loss.detach()
    (slope,) = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    if slope is None:  # no slot of the batch is filled, and the target does not depend on them
        return loss.detach()
    surrogate = (weights * slope).sum()
    return surrogate - surrogate.detach() + loss.detach()


def answer_ce(student: LatentStudent, around: Around, target: KVTrace) -> Tensor:
    """Cross-entropy of each sample's answer, read from a target, summed over its tokens: [B]."""
    assert around.output is not None
    logits = answer_from(student, around.batch, around.output, target, around.rotary)
    return summed_ce(logits, around.labels)


def policy_loss(
    shares_BN: Tensor,
    chosen_B: Tensor,
    present_BN: Tensor,
    reward_B: Tensor,
    baseline_2: Tensor,
    *,
    moves: bool,
) -> Tensor:
    """REINFORCE: −(reward − baseline) · log share of the drawn teacher, summed over the batch.

    Args:
        shares_BN: of the router, with their gradient.
        chosen_B: the drawn teachers.
        present_BN: which teachers are there.
        reward_B: of each draw.
        baseline_2: the running mean of the reward, and whether there is one yet; moved in place.
        moves: whether it moves, as in training.
    """
    baseline, seen = baseline_2.unbind()
    mean = reward_B.mean()
    advantage_B = reward_B - (baseline if seen else mean)
    if moves:
        kept = MOMENTUM * baseline + (1 - MOMENTUM) * mean if seen else mean
        baseline_2.copy_(torch.stack([kept, torch.ones_like(kept)]))
    taken_B = shares_BN.gather(1, chosen_B[:, None])[:, 0]
    there_B = present_BN.gather(1, chosen_B[:, None])[:, 0]
    loss_B = -advantage_B.detach() * taken_B.clamp(min=1e-9).log() * there_B
    return loss_B.sum()


def summed_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """[B]: cross-entropy of [B, A, V] against [B, A], summed over the tokens of each sample."""
    losses = cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels).sum(1)
