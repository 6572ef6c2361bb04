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
