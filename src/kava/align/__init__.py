"""Alignment: a teacher's key/value cache in a student's layers, positions, heads and dims."""

from kava.align.aligner import ALIGNMENT_MODES, AlignedKV, CacheGeometry, MapProjectionAligner
from kava.align.flat import (
    FLAT_VARIANTS,
    FlatKV,
    FlatStack,
    KVDimensionProjector,
    StudentToTeacherProjector,
)
from kava.align.head_map import HeadwiseMapProjector
from kava.align.layer_map import (
    LAYER_MAPS,
    layer_map,
    load_layer_map,
    register_layer_map,
    resolve_layer_map,
    save_layer_map,
)
from kava.align.time_warp import TimeWarp, TimeWarper
from kava.align.trace import align_trace

__all__ = [
    "ALIGNMENT_MODES",
    "FLAT_VARIANTS",
    "LAYER_MAPS",
    "AlignedKV",
    "CacheGeometry",
    "FlatKV",
    "FlatStack",
    "HeadwiseMapProjector",
    "KVDimensionProjector",
    "MapProjectionAligner",
    "StudentToTeacherProjector",
    "TimeWarp",
    "TimeWarper",
    "align_trace",
    "layer_map",
    "load_layer_map",
    "register_layer_map",
    "resolve_layer_map",
    "save_layer_map",
]
