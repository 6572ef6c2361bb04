"""Causal importance: which positions of its own reasoning a teacher cannot do without.

Attention tells where a model looks. These scores ask the model instead, by hiding a position
from it, and are therefore computed apart from a trace: once per sample, before training.
"""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.importance.score import SCORERS, score_samples
    from kava.importance.stages import REACHES, Reach, token_stages
    from kava.importance.store import ScoreStore, sample_digest
    from kava.store.fingerprints import weights_fingerprint

__all__ = [
    "REACHES",
    "SCORERS",
    "Reach",
    "ScoreStore",
    "sample_digest",
    "score_samples",
    "token_stages",
    "weights_fingerprint",
]

__getattr__ = lazy_names(
    __name__,
    {
        "REACHES": "kava.importance.stages",
        "SCORERS": "kava.importance.score",
        "Reach": "kava.importance.stages",
        "ScoreStore": "kava.importance.store",
        "sample_digest": "kava.importance.store",
        "score_samples": "kava.importance.score",
        "token_stages": "kava.importance.stages",
        "weights_fingerprint": "kava.store.fingerprints",
    },
)
