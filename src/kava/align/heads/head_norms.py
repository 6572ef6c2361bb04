"""How strongly a map reads each head, as plain numbers.

Shapes: L layers, H_out/H_in heads of the space that is written and of the one that is read.
"""

from __future__ import annotations

import torch

from kava.align.heads.build import Projector
from kava.align.heads.head_map import HeadwiseMapProjector
from kava.align.heads.layerwise import LayerwiseProjector


def head_norms(projector: Projector) -> list[list[list[float]]]:
    """How strongly a map reads each head: the Frobenius norm of each block of its matrix.

    Args:
        projector: a map of heads and head dims, one for all layers or one for each.

    Returns:
        [L, H_out, H_in]; L is 1 where all layers share the map.

    Raises:
        ValueError: a map that is no matrix, such as a flat one of several layers.

    Example:
        >>> head_norms(LayerwiseProjector(2, 6, 4, 16, 16))[0][0]
        [4.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if isinstance(projector, LayerwiseProjector):
        heads = (projector.num_heads_out, projector.num_heads_in)
        blocks = projector.dense().detach().unflatten(2, (heads[1], -1))
        return blocks.unflatten(1, (heads[0], -1)).norm(dim=(2, 4)).tolist()
    if isinstance(projector, HeadwiseMapProjector):
        mix = projector.head_mixer.weight.detach().abs()
        dims = torch.linalg.matrix_norm(projector.dim_weight.detach())
        return (mix * dims.reshape(-1, 1)).unsqueeze(0).tolist()
    raise ValueError(
        f"a {type(projector).__name__} is no single matrix of heads; draw a structured map, or one "
        f"that was calibrated"
    )
