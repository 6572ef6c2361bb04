"""Eviction: cut a teacher's trace to the few positions a student is to match.

Every method is one file with one dataclass, known by the name it registers under.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kava.callable_module import make_callable
from kava.compress.base import (
    EVICTIONS,
    Candidates,
    Eviction,
    ScoredEviction,
    build_eviction,
    register_eviction,
)
from kava.compress.full import FullEviction
from kava.compress.given import GivenScoresEviction
from kava.compress.h2o import H2OEviction
from kava.compress.key_norm import KeyNormEviction
from kava.compress.knockout import KnockoutEviction
from kava.compress.knockout_gradient import KnockoutGradientEviction
from kava.compress.positions import PositionsEviction
from kava.compress.random import RandomEviction
from kava.compress.right_crop import RightCropEviction
from kava.compress.rkv import RKVEviction
from kava.compress.rkv_official import RKVOfficialEviction
from kava.compress.snapkv import SnapKVEviction
from kava.compress.streaming_llm import StreamingLLMEviction
from kava.compress.tova import TOVAEviction
from kava.compress.uniform import UniformEviction
from kava.compress.window import WindowEviction
from kava.trace import KVTrace, Scope

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


def compress(
    trace: KVTrace,
    method: str = "rkv",
    target_len: int = 8,
    *,
    scope: Scope | None = None,
    **options: Any,
) -> tuple[KVTrace, Tensor]:
    """Cut a trace to `target_len` positions by a named method.

    The latent student has M positions where the teacher wrote many more; this says which of the
    teacher's keys and values they are to match (KaVa, arXiv 2510.02312).

    Only valid positions are candidates, and where the trace knows its segments only those of the
    reasoning. A sample with fewer candidates than `target_len` keeps all of them: its remaining
    slots repeat the last kept position and are False in the result's mask.

    Args:
        trace: what to cut; methods that score by attention need its queries.
        method: a key of `EVICTIONS`.
        target_len: M. "full" keeps every candidate and ignores it.
        scope: how widely one choice is shared, "head", "layer" or "model"; None is the method's
            own default.
        **options: the fields of the method's dataclass.

    Returns:
        The trace of the kept positions, dtype, device and gradients kept, with the scope
        recorded; and their indices [B, L, H, M] into the T axis of the input, ascending.
        Positions and segments of the result are [B, M] for scope "model", else [B, L, H, M].

    Raises:
        ValueError: an unknown method or option, an option out of its range, `target_len` below 1,
            a sample without candidates, or a part of the trace that the method needs and lacks.

    Example:
        >>> trace = KVTrace(torch.randn(2, 3, 4, 20, 8), torch.randn(2, 3, 4, 20, 8))
        >>> kept, indices_BLHM = compress(trace, "uniform", target_len=5)
        >>> indices_BLHM.shape, kept.length, kept.scope
        (torch.Size([2, 3, 4, 5]), 5, 'model')
    """
    if scope is not None:
        options["scope"] = scope
    return build_eviction(method, **options)(trace, target_len)


make_callable(__name__, compress)
