"""Terms that keep a router from one teacher alone, or push it there.

Shapes: B batch, N teachers.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from kava.names import ENTROPY_TARGETS


def entropy(weights: Tensor) -> Tensor:
    """The entropy of shares [.., N], in nats: 0 of one teacher alone, log N of equal ones."""
    # its slope is finite where a share is 0
    shares = weights.clamp(min=torch.finfo(weights.dtype).tiny)
    return -(weights * shares.log()).sum(-1)


class EntropyRegularizer:
    """A term on the entropy H of the shares.

    Args:
        target: "diverse" adds strength · (log N − H), least where all teachers count alike;
            "specialized" adds strength · H, least where one teacher has it all.
        strength: weight of the term.

    Raises:
        ValueError: an unknown target, or a strength below 0.

    Example:
        >>> EntropyRegularizer("diverse").compute_loss(torch.tensor([[0.5, 0.5]])).item()
        0.0
    """

    def __init__(self, target: str = "specialized", strength: float = 0.01):
        if target not in ENTROPY_TARGETS:
            raise ValueError(
                f"target={target!r} is unknown; choose from {', '.join(ENTROPY_TARGETS)}"
            )
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength={strength} must be finite and 0 or more")
        self.target, self.strength = target, strength

    def compute_loss(self, weights: Tensor) -> Tensor:
        """The term, a mean over all rows of `weights` [.., N]."""
        mean = entropy(weights).mean()
        if self.target == "diverse":
            mean = log(weights.shape[-1]) - mean
        return self.strength * mean


def load_balance_loss(weights: Tensor) -> Tensor:
    """N · Σ fₙ·pₙ, 1 where the teachers share the samples alike, N where one takes them all.

    f is the share of rows whose largest weight is the teacher's, p its mean weight, which carries
    the gradient (Switch Transformer, arXiv 2101.03961, eq. 4).

    Args:
        weights: [.., N].
    """
    N = weights.shape[-1]
    rows = weights.flatten(0, -2)
    first = torch.nn.functional.one_hot(rows.argmax(-1), N).float().mean(0)
    return N * (first * rows.mean(0)).sum()
