"""Rotary position embeddings: how a model rotates keys and queries, and how to undo or change it.

`rotary` holds the rotation itself, `scaling` the ways in which frequencies are stretched for longer
texts, and `trace` both for a whole trace. `kava.models.rotary` reads a model's rotation off it.
"""

from kava.rope.rotary import Rotary, rerotate, rotate, unrotate
from kava.rope.scaling import ROPE_SCALINGS, RopeScaling, build_scaling, scaling_of
from kava.rope.several import MultiTeacherRoPEScaler
from kava.rope.trace import at_length_of, rotate_trace, unrotate_trace

__all__ = [
    "ROPE_SCALINGS",
    "MultiTeacherRoPEScaler",
    "RopeScaling",
    "Rotary",
    "at_length_of",
    "build_scaling",
    "rerotate",
    "rotate",
    "rotate_trace",
    "scaling_of",
    "unrotate",
    "unrotate_trace",
]
