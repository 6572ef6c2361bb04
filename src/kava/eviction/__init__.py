"""Eviction: cut a teacher's trace to the few positions that a student should match.

Every method is one file with one dataclass, registered under its name.
"""

from kava.eviction.base import (
    EVICTIONS,
    Candidates,
    Eviction,
    ScoredEviction,
    build_eviction,
    compress,
    register_eviction,
)
from kava.eviction.full import FullEviction
from kava.eviction.given import GivenScoresEviction
from kava.eviction.h2o import H2OEviction
from kava.eviction.key_norm import KeyNormEviction
from kava.eviction.knockout import KnockoutEviction
from kava.eviction.knockout_gradient import KnockoutGradientEviction
from kava.eviction.positions import PositionsEviction
from kava.eviction.random import RandomEviction
from kava.eviction.right_crop import RightCropEviction
from kava.eviction.rkv import RKVEviction
from kava.eviction.rkv_official import RKVOfficialEviction
from kava.eviction.snapkv import SnapKVEviction
from kava.eviction.streaming_llm import StreamingLLMEviction
from kava.eviction.tova import TOVAEviction
from kava.eviction.uniform import UniformEviction
from kava.eviction.window import WindowEviction

__all__ = [
    "EVICTIONS",
    "Candidates",
    "Eviction",
    "FullEviction",
    "GivenScoresEviction",
    "H2OEviction",
    "KeyNormEviction",
    "KnockoutEviction",
    "KnockoutGradientEviction",
    "PositionsEviction",
    "RKVEviction",
    "RKVOfficialEviction",
    "RandomEviction",
    "RightCropEviction",
    "ScoredEviction",
    "SnapKVEviction",
    "StreamingLLMEviction",
    "TOVAEviction",
    "UniformEviction",
    "WindowEviction",
    "build_eviction",
    "compress",
    "register_eviction",
]
