"""The weights of the maps that a contraction applies, and the buffers it works in.

Shapes: L layers, r terms, H_in/H_out heads, D_in/D_out head dims, C = H·D coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Buffers:
    """Named buffers that every block reuses; the first block is the largest."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.by_name: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The buffer of a name, cut to the block's samples."""
        if name not in self.by_name:
            self.by_name[name] = self.like.new_empty(shape)
        return self.by_name[name][: shape[0]]


class MapWeights(NamedTuple):
    """A map's weights: head mixes and dim maps of its terms, or a matrix over all coordinates.

    L is the number of student layers, or 1 where all of them share the map. Gradients have the
    same form.
    """

    head: Tensor | None
    """[L, r, H_out, H_in]."""
    dim: Tensor | None
    """[L, r, D_out, D_in], or [L, r, H_out, D_out, D_in] for a dim map per head."""
    full: Tensor | None
    """[L, C_out, C_in]."""

    @property
    def terms(self) -> tuple[Tensor, Tensor]:
        """Head mixes and dim maps of a map that is a sum of terms."""
        assert self.head is not None
        assert self.dim is not None
        return self.head, self.dim

    @property
    def num_rows(self) -> int:
        """C_out."""
        if self.full is not None:
            return self.full.shape[1]
        head, dim = self.terms
        return head.shape[2] * dim.shape[-2]

    def at(self, layer: int) -> MapWeights:
        """The weights of one layer, [r, …] or [C_out, C_in]; a shared map serves every layer."""
        return MapWeights(
            *(part if part is None else part[layer if len(part) > 1 else 0] for part in self)
        )
