"""A latent space that the caches of teachers and student are encoded into and compared in.

Every loss is a function of two sets of points, listed in `SHARED_LOSSES` under its name.
"""

from kava.shared.encoder import TraceEncoder
from kava.shared.fit import Pairs, SpaceFit, fit_space
from kava.shared.guard import SpaceReport, space_report, space_verdict
from kava.shared.losses import (
    SHARED_LOSSES,
    barlow,
    cca,
    cosine,
    mse,
    redundancy,
    too_little_variance,
)
from kava.shared.space import SharedSpace

__all__ = [
    "SHARED_LOSSES",
    "Pairs",
    "SharedSpace",
    "SpaceFit",
    "SpaceReport",
    "TraceEncoder",
    "barlow",
    "cca",
    "cosine",
    "fit_space",
    "mse",
    "redundancy",
    "space_report",
    "space_verdict",
    "too_little_variance",
]
