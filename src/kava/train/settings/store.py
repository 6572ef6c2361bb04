"""Flags of `kava train`: teachers that were read before."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag


@dataclass(kw_only=True)
class StoreSettings:
    """Stores of `kava extract` that a run reads in place of its teachers."""

    store: list[str] | None = flag(
        None,
        "folder of kava extract with what the teacher left behind, one for each of --teachers in "
        "their order: it is read in place of the teacher, whose weights are not loaded",
        metavar="FOLDER",
        group="store",
        unset="none, the teacher reads at every step",
    )
    store_tier: str = flag(
        "targets",
        "targets: the positions that were kept when it was extracted; full: whole texts, of which "
        "every step keeps some as with a live teacher",
        choices=names.STORE_TIERS,
    )
    cache_budget: int | None = flag(
        None,
        "kava extract cuts the teacher's cache to this many positions after each capture_chunk "
        "tokens, for texts that are too long for a whole one; keys and values of longer texts are "
        "then an approximation; a run that reads such a store gives the same",
        least=1,
        metavar="TOKENS",
        unset="the whole text",
    )
    cache_sinks: int | None = flag(
        None, "first positions that always stay", least=0, unset="4, or half of a smaller budget"
    )
    cache_recent: int | None = flag(
        None,
        "newest positions that always stay",
        least=0,
        unset="half of what the sinks leave; all of it for recent",
    )
    cache_scores: str = flag(
        "rkv",
        "what else stays: what got most attention (h2o), or that and the least repeated keys (rkv, "
        "by rkv_lambda, 0.1 if not set); recent: nothing else",
        choices=names.CACHE_SCORES,
    )
