"""Alignment: a teacher's key/value cache in a student's layers, positions, heads and dims."""

from kava.align.aligner import AlignedKV, MapProjectionAligner
from kava.align.geometry import CacheGeometry
from kava.align.heads.flat import (
    FlatKV,
    FlatStack,
    KVDimensionProjector,
    StudentToTeacherProjector,
)
from kava.align.heads.head_map import HeadwiseMapProjector
from kava.align.heads.layerwise import LayerwiseProjector
from kava.align.layers.cka import linear_cka
from kava.align.layers.cka_map import CKA_LAYER_MAPS, cka_layer_map, register_cka_layer_map
from kava.align.layers.layer_map import (
    LAYER_MAPS,
    layer_map,
    load_layer_map,
    register_layer_map,
    resolve_layer_map,
    save_layer_map,
)
from kava.align.layers.streaming_cka import StreamingCKA
from kava.align.several import MultiTeacherHeadDimAdapter, build_multi_teacher_layer_map
from kava.align.time.time_warp import TimeWarp, TimeWarper
from kava.align.tokens.aligner import TokenAligner, TokenAlignment, align_offsets, token_offsets
from kava.align.trace import align_trace
from kava.names import ALIGN_DIRECTIONS, ALIGNMENT_MODES, FLAT_VARIANTS, TOKEN_ALIGNMENTS

__all__ = [
    "ALIGNMENT_MODES",
    "ALIGN_DIRECTIONS",
    "CKA_LAYER_MAPS",
    "FLAT_VARIANTS",
    "LAYER_MAPS",
    "TOKEN_ALIGNMENTS",
    "AlignedKV",
    "CacheGeometry",
    "FlatKV",
    "FlatStack",
    "HeadwiseMapProjector",
    "KVDimensionProjector",
    "LayerwiseProjector",
    "MapProjectionAligner",
    "MultiTeacherHeadDimAdapter",
    "StreamingCKA",
    "StudentToTeacherProjector",
    "TimeWarp",
    "TimeWarper",
    "TokenAligner",
    "TokenAlignment",
    "align_offsets",
    "align_trace",
    "build_multi_teacher_layer_map",
    "cka_layer_map",
    "layer_map",
    "linear_cka",
    "load_layer_map",
    "register_cka_layer_map",
    "register_layer_map",
    "resolve_layer_map",
    "save_layer_map",
    "token_offsets",
]
