"""Fusion: one target from the aligned caches of several teachers.

Every method is one file with one dataclass, registered under its name.
"""

from kava.fuse.answers import AverageCEFusion, ConfidenceFusion, MinCEFusion
from kava.fuse.base import (
    FUSIONS,
    Fused,
    Fusion,
    Offers,
    build_fusion,
    mix,
    register_fusion,
    renormalise,
)
from kava.fuse.conflict import agreement
from kava.fuse.disagreement import DisagreementFusion
from kava.fuse.fixed import FixedFusion, check_weights
from kava.fuse.known import (
    fuse_kvs_fixed,
    fuse_kvs_learnable,
    fuse_kvs_similarity,
    fuse_multi_teacher_kv,
    merge_multi_teacher_kvs,
)
from kava.fuse.learnable import LearnableFusion
from kava.fuse.oracle import OracleFusion
from kava.fuse.prototypes import (
    compute_multi_teacher_prototypes,
    compute_routing_weights,
    compute_similarity,
    compute_teacher_prototype,
)
from kava.fuse.regularisers import EntropyRegularizer, load_balance_loss
from kava.fuse.router import LayerRouters, LearnableRouter
from kava.fuse.similarity import SimilarityFusion
from kava.fuse.union import UnionFusion, shares_of_slots

__all__ = [
    "FUSIONS",
    "AverageCEFusion",
    "ConfidenceFusion",
    "DisagreementFusion",
    "EntropyRegularizer",
    "FixedFusion",
    "Fused",
    "Fusion",
    "LayerRouters",
    "LearnableFusion",
    "LearnableRouter",
    "MinCEFusion",
    "Offers",
    "OracleFusion",
    "SimilarityFusion",
    "UnionFusion",
    "agreement",
    "build_fusion",
    "check_weights",
    "compute_multi_teacher_prototypes",
    "compute_routing_weights",
    "compute_similarity",
    "compute_teacher_prototype",
    "fuse_kvs_fixed",
    "fuse_kvs_learnable",
    "fuse_kvs_similarity",
    "fuse_multi_teacher_kv",
    "load_balance_loss",
    "merge_multi_teacher_kvs",
    "mix",
    "register_fusion",
    "renormalise",
    "shares_of_slots",
]
