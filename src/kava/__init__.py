"""KaVa: distil a reasoning model's key/value cache into a small student.

The public names load on first use, so that `import kava` costs nothing: no torch, no
transformers. Where transformers is imported too, its `AutoConfig` and `AutoModelForCausalLM` know
a latent student: it is registered as soon as they are there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kava.lazy import import_after

if TYPE_CHECKING:
    from kava.align import (
        HeadwiseMapProjector,
        KVDimensionProjector,
        MapProjectionAligner,
        MultiTeacherHeadDimAdapter,
        StudentToTeacherProjector,
        TimeWarper,
        TokenAligner,
        build_multi_teacher_layer_map,
        layer_map,
        linear_cka,
    )
    from kava.eviction import compress
    from kava.extract import TeacherKVExtractor, extract_from_dataset
    from kava.fuse import (
        EntropyRegularizer,
        LearnableRouter,
        compute_multi_teacher_prototypes,
        compute_routing_weights,
        compute_similarity,
        compute_teacher_prototype,
        fuse_kvs_fixed,
        fuse_kvs_learnable,
        fuse_kvs_similarity,
        fuse_multi_teacher_kv,
        merge_multi_teacher_kvs,
    )
    from kava.losses import CODILoss, MercatorKVLoss, StructuralKVLoss
    from kava.models import load_model, load_tokenizer, rotary_of
    from kava.models.capture import capture
    from kava.rope import MultiTeacherRoPEScaler, rotate, unrotate
    from kava.segments import SegmentIdentifier
    from kava.student import LatentStudent, LatentStudentConfig
    from kava.student.checkpoint import load_student
    from kava.trace import KVTrace, Segment, stack_past_kv
    from kava.train import KVDistillTrainer, TrainConfig

    __version__: str

import_after("transformers.models.auto.configuration_auto", "kava.student.registration")

_MODULE_OF = {
    "CODILoss": "kava.losses",
    "EntropyRegularizer": "kava.fuse",
    "HeadwiseMapProjector": "kava.align",
    "KVDimensionProjector": "kava.align",
    "KVDistillTrainer": "kava.train",
    "KVTrace": "kava.trace",
    "LatentStudent": "kava.student",
    "LatentStudentConfig": "kava.student",
    "LearnableRouter": "kava.fuse",
    "MapProjectionAligner": "kava.align",
    "MercatorKVLoss": "kava.losses",
    "MultiTeacherHeadDimAdapter": "kava.align",
    "MultiTeacherRoPEScaler": "kava.rope",
    "Segment": "kava.trace",
    "SegmentIdentifier": "kava.segments",
    "StructuralKVLoss": "kava.losses",
    "StudentToTeacherProjector": "kava.align",
    "TeacherKVExtractor": "kava.extract",
    "TimeWarper": "kava.align",
    "TokenAligner": "kava.align",
    "TrainConfig": "kava.train",
    "build_multi_teacher_layer_map": "kava.align",
    "capture": "kava.models.capture",
    "compress": "kava.eviction",
    "compute_multi_teacher_prototypes": "kava.fuse",
    "compute_routing_weights": "kava.fuse",
    "compute_similarity": "kava.fuse",
    "compute_teacher_prototype": "kava.fuse",
    "extract_from_dataset": "kava.extract",
    "fuse_kvs_fixed": "kava.fuse",
    "fuse_kvs_learnable": "kava.fuse",
    "fuse_kvs_similarity": "kava.fuse",
    "fuse_multi_teacher_kv": "kava.fuse",
    "layer_map": "kava.align",
    "linear_cka": "kava.align",
    "load_model": "kava.models",
    "load_student": "kava.student.checkpoint",
    "load_tokenizer": "kava.models",
    "merge_multi_teacher_kvs": "kava.fuse",
    "rotary_of": "kava.models",
    "rotate": "kava.rope",
    "stack_past_kv": "kava.trace",
    "unrotate": "kava.rope",
}

__all__ = [
    "CODILoss",
    "EntropyRegularizer",
    "HeadwiseMapProjector",
    "KVDimensionProjector",
    "KVDistillTrainer",
    "KVTrace",
    "LatentStudent",
    "LatentStudentConfig",
    "LearnableRouter",
    "MapProjectionAligner",
    "MercatorKVLoss",
    "MultiTeacherHeadDimAdapter",
    "MultiTeacherRoPEScaler",
    "Segment",
    "SegmentIdentifier",
    "StructuralKVLoss",
    "StudentToTeacherProjector",
    "TeacherKVExtractor",
    "TimeWarper",
    "TokenAligner",
    "TrainConfig",
    "__version__",
    "build_multi_teacher_layer_map",
    "capture",
    "compress",
    "compute_multi_teacher_prototypes",
    "compute_routing_weights",
    "compute_similarity",
    "compute_teacher_prototype",
    "extract_from_dataset",
    "fuse_kvs_fixed",
    "fuse_kvs_learnable",
    "fuse_kvs_similarity",
    "fuse_multi_teacher_kv",
    "layer_map",
    "linear_cka",
    "load_model",
    "load_student",
    "load_tokenizer",
    "merge_multi_teacher_kvs",
    "rotary_of",
    "rotate",
    "stack_past_kv",
    "unrotate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kava-distill")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kava' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
