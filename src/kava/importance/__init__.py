"""Causal importance: which positions of its own reasoning a teacher cannot do without.

Attention tells where a model looks. These scores ask the model instead, by hiding a position
from it, and are therefore computed apart from a trace: once per sample, before training.
"""

from __future__ import annotations

from kava.importance.gradient import gradient
from kava.importance.knockout import knockout
from kava.importance.score import SCORERS, score_samples
from kava.importance.stages import REACHES, Reach, token_stages
from kava.importance.store import ScoreStore, sample_digest, weights_fingerprint

__all__ = [
    "REACHES",
    "SCORERS",
    "Reach",
    "ScoreStore",
    "gradient",
    "knockout",
    "sample_digest",
    "score_samples",
    "token_stages",
    "weights_fingerprint",
]
