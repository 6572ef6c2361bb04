"""The teacher that the data name for a sample."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kava.fuse.base import Fusion, Offers, needed, one_hot, register_fusion


@register_fusion
@dataclass(frozen=True, kw_only=True)
class OracleFusion(Fusion):
    """One teacher for each sample, by a column of the data.

    Multi-teacher on-policy distillation routes in the same way (MOPD, arXiv 2606.30406).
    """

    name = "oracle"
    reads = frozenset({"chosen_B"})

    def weigh(self, offers: Offers) -> Tensor:
        """1 for the named teacher."""
        return one_hot(needed(offers.chosen_B, "chosen_B", self.name), offers.present_BN.shape[1])

    def choose(self, offers: Offers) -> Tensor | None:
        """The named teacher."""
        return needed(offers.chosen_B, "chosen_B", self.name)
