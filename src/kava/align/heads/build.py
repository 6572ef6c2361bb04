"""Build the maps of heads and head dims for an aligner's mode, and apply them.

Keys, values and queries have a map each; queries of a model with grouped queries have more heads.

Shapes: B batch, L_t/L_s layers of teacher and student, H heads, T positions, D head dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from kava.align.geometry import CacheGeometry
from kava.align.heads.flat import FlatStack, KVDimensionProjector, StudentToTeacherProjector
from kava.align.heads.head_map import HeadwiseMapProjector
from kava.align.heads.layerwise import LayerwiseProjector
from kava.align.layers.sparse_map import Rows
from kava.align.linear_maps import mix_layers
from kava.align.time.time_warp import TimeWarp
from kava.names import ALIGN_DIRECTIONS, ALIGNMENT_MODES, STUDENT_TO_TEACHER

QUERY_PROJECTORS = frozenset({"query_projector", "query_stack"})
"""The names under which an aligner holds its maps of queries."""

Projector = HeadwiseMapProjector | LayerwiseProjector | FlatStack
"""A map of heads and head dims, of keys, values or queries."""


def check_options(
    mode: str, direction: str, per_layer: bool, rank: int | None, flat_variant: str | None
) -> None:
    """Check that an aligner's options exist and can be combined.

    Raises:
        ValueError: an unknown mode or direction, or options that exclude each other.
    """
    if mode not in ALIGNMENT_MODES:
        raise ValueError(f"mode={mode!r} is unknown; choose from {', '.join(ALIGNMENT_MODES)}")
    if direction not in ALIGN_DIRECTIONS:
        raise ValueError(
            f"direction={direction!r} is unknown; choose from {', '.join(ALIGN_DIRECTIONS)}"
        )
    if rank is not None and not (per_layer and mode == "structured"):
        raise ValueError(
            f"rank={rank} counts the terms of a structured map per layer, but mode={mode!r} and "
            f"per_layer={per_layer}; use mode='structured' and per_layer=True or leave rank out"
        )
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} must be at least 1; a full map is mode='flat'")
    if per_layer and mode == "identity":
        raise ValueError("per_layer=True needs maps, but mode='identity' has none; leave it out")
    if per_layer and flat_variant not in (None, "linear"):
        raise ValueError(
            f"flat_variant={flat_variant!r} is a map that all layers share, but with "
            f"per_layer=True every layer has a linear one; leave one of them out"
        )


def build_projectors(
    mode: str,
    direction: str,
    source: CacheGeometry,
    target: CacheGeometry,
    *,
    num_layers: int | None,
    rank: int,
    share_dim_proj: bool,
    init_uniform: bool,
    flat_variant: str,
    map_queries: bool = True,
) -> dict[str, nn.Module]:
    """The maps from `source` to `target`, under the names of an aligner's attributes.

    Args:
        mode: one of `ALIGNMENT_MODES`.
        direction: one of `ALIGN_DIRECTIONS`.
        source: the geometry that is mapped.
        target: the geometry that is mapped to.
        num_layers: the number of layers that each have a separate map; None: all share one.
        rank: structured with maps per layer: the number of terms.
        share_dim_proj: structured: one dim map for all heads, or one per head.
        init_uniform: structured and per layer: start from group averages, or at random.
        flat_variant: flat and shared: see `FlatStack`.
        map_queries: make a map of queries too.
    """
    if mode == "identity":
        return {}
    if mode == "flat" and num_layers is None:
        toward_teacher = direction == STUDENT_TO_TEACHER
        stacks = StudentToTeacherProjector if toward_teacher else KVDimensionProjector
        dim_in, dim_out = (side.num_heads * side.head_dim for side in (source, target))
        made: dict[str, nn.Module] = {"key_value_projector": stacks(dim_in, dim_out, flat_variant)}
        if map_queries:
            dim_in, dim_out = (side.num_query_heads * side.head_dim for side in (source, target))
            made["query_stack"] = FlatStack(dim_in, dim_out, flat_variant)
        return made

    def projector(heads_in: int, heads_out: int) -> nn.Module:
        geometry = (heads_in, heads_out, source.head_dim, target.head_dim)
        if num_layers is None:
            return HeadwiseMapProjector(*geometry, share_dim_proj, init_uniform)
        return LayerwiseProjector(
            num_layers,
            *geometry,
            rank=rank if mode == "structured" else None,
            per_head=mode == "structured" and not share_dim_proj,
            init_uniform=init_uniform,
        )

    made = {
        "key_projector": projector(source.num_heads, target.num_heads),
        "value_projector": projector(source.num_heads, target.num_heads),
    }
    if map_queries:
        made["query_projector"] = projector(source.num_query_heads, target.num_query_heads)
    return made


def apply_projector(
    projector: Projector | None,
    x_BLHTD: Tensor,
    rows: Rows,
    warp: TimeWarp | None = None,
    num_heads: int = 1,
) -> Tensor:
    """Sum layers by `rows`, warp time, and map heads and head dims, in the cheapest order.

    Args:
        projector: None maps no heads.
        x_BLHTD: [B, L, H, T, D].
        rows: the non-zero weights of a layer map.
        warp: None leaves positions as they are.
        num_heads: the heads that a flat stack's output is split into.
    """
    if isinstance(projector, FlatStack):
        mixed = mix_layers(x_BLHTD, rows)
        # A bottleneck is not linear, so the warp comes first.
        return projector.map_heads(mixed if warp is None else warp.apply(mixed), num_heads)
    # Affine maps commute with a warp, which reads two positions for each slot: it goes first
    # where that is less than the whole cache, and else onto the smaller result.
    early = warp is not None and 2 * warp.weight.shape[1] <= x_BLHTD.shape[3]
    if warp is not None and early:
        x_BLHTD = warp.apply(x_BLHTD)
    y = mix_layers(x_BLHTD, rows) if projector is None else projector.project_layers(x_BLHTD, rows)
    return y if warp is None or early else warp.apply(y)
