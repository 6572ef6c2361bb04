"""KaVa: distil a reasoning model's key/value cache into a small student.

The public names load on first use, so that `import kava` costs nothing: no torch, no
transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kava.align import (
        HeadwiseMapProjector,
        KVDimensionProjector,
        MapProjectionAligner,
        StudentToTeacherProjector,
        TimeWarper,
        TokenAligner,
        layer_map,
        linear_cka,
    )
    from kava.eviction import compress
    from kava.losses import CODILoss, MercatorKVLoss, StructuralKVLoss
    from kava.models import load_model, load_tokenizer, rotary_of
    from kava.models.capture import capture
    from kava.rope import rotate, unrotate
    from kava.segments import SegmentIdentifier
    from kava.student import LatentStudent, LatentStudentConfig
    from kava.trace import KVTrace, Segment, stack_past_kv
    from kava.train import KVDistillTrainer, TrainConfig

    __version__: str

_MODULE_OF = {
    "CODILoss": "kava.losses",
    "HeadwiseMapProjector": "kava.align",
    "KVDimensionProjector": "kava.align",
    "KVDistillTrainer": "kava.train",
    "KVTrace": "kava.trace",
    "LatentStudent": "kava.student",
    "LatentStudentConfig": "kava.student",
    "MapProjectionAligner": "kava.align",
    "MercatorKVLoss": "kava.losses",
    "Segment": "kava.trace",
    "SegmentIdentifier": "kava.segments",
    "StructuralKVLoss": "kava.losses",
    "StudentToTeacherProjector": "kava.align",
    "TimeWarper": "kava.align",
    "TokenAligner": "kava.align",
    "TrainConfig": "kava.train",
    "capture": "kava.models.capture",
    "compress": "kava.eviction",
    "layer_map": "kava.align",
    "linear_cka": "kava.align",
    "load_model": "kava.models",
    "load_tokenizer": "kava.models",
    "rotary_of": "kava.models",
    "rotate": "kava.rope",
    "stack_past_kv": "kava.trace",
    "unrotate": "kava.rope",
}

__all__ = [
    "CODILoss",
    "HeadwiseMapProjector",
    "KVDimensionProjector",
    "KVDistillTrainer",
    "KVTrace",
    "LatentStudent",
    "LatentStudentConfig",
    "MapProjectionAligner",
    "MercatorKVLoss",
    "Segment",
    "SegmentIdentifier",
    "StructuralKVLoss",
    "StudentToTeacherProjector",
    "TimeWarper",
    "TokenAligner",
    "TrainConfig",
    "__version__",
    "capture",
    "compress",
    "layer_map",
    "linear_cka",
    "load_model",
    "load_tokenizer",
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
