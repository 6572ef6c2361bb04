"""Weights from a router that is trained.

Shapes: B batch, L layers, N teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.fuse.answers import check_temperature
from kava.fuse.base import Fusion, Offers, needed, one_hot, register_fusion
from kava.fuse.router import LayerRouters
from kava.names import ROUTER_LEARNING


@register_fusion
@dataclass(frozen=True, kw_only=True)
class LearnableFusion(Fusion):
    """A router reads the student's values where the reasoning begins.

    Args:
        router: gives the logits of the teachers.
        temperature: of the softmax over them.
        learning: "gradient" and "likelihood" mix the teachers by the router's shares; "policy"
            draws one teacher for each sample, in evaluation the likeliest, and only that teacher
            reads the sample.
    """

    name = "learnable"
    reads = frozenset({"query_BLC"})
    router: LayerRouters
    temperature: float = 1.0
    learning: str = "gradient"

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.learning not in ROUTER_LEARNING:
            raise ValueError(
                f"learning={self.learning!r} is unknown; choose from {', '.join(ROUTER_LEARNING)}"
            )
        if self.learning == "policy" and self.router.per_layer:
            raise ValueError("a policy draws one teacher for a sample: pass per_layer=False")

    def shares(self, offers: Offers) -> Tensor:
        """The router's shares over the teachers that are there, [B, L or 1, N]."""
        query = needed(offers.query_BLC, "query_BLC", self.name)
        logits_BLN = self.router(query) / self.temperature
        logits_BLN = logits_BLN.masked_fill(~offers.present_BN[:, None], float("-inf"))
        return torch.nan_to_num(logits_BLN.softmax(-1), nan=0.0)

    def weigh(self, offers: Offers) -> Tensor:
        """The shares, or 1 for the chosen teacher."""
        chosen_B = offers.chosen_B if self.learning == "policy" else None
        if chosen_B is not None:
            return one_hot(chosen_B, offers.present_BN.shape[1])
        return self.shares(offers)[:, :, None]

    @torch.no_grad()
    def choose(self, offers: Offers) -> Tensor | None:
        """A policy's draw."""
        if self.learning != "policy":
            return None
        shares_BN = self.shares(offers)[:, 0]
        if not offers.explore:
            return shares_BN.argmax(-1)
        drawn: Tensor = torch.multinomial(shares_BN.clamp(min=1e-9), 1)[:, 0]
        return drawn
