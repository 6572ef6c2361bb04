"""The bounded cache by which the teacher of a stored run has read, from the run's flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kava.flags import flags_of
from kava.train.settings import Settings
from kava.train.settings.store import StoreSettings

if TYPE_CHECKING:
    from kava.eviction.bounded import CacheBudget

_SETTINGS = (
    *("cache_budget", "cache_block", "cache_sinks", "cache_recent", "cache_scores"),
    "cache_lambda",
)


def budget_of(config: Settings) -> CacheBudget | None:
    """The cache of `--cache_budget`; None: it held whole texts.

    Raises:
        ValueError: sinks and recent positions that do not fit the budget.
    """
    if config.cache_budget is None:
        return None
    from kava.eviction.bounded import CacheBudget

    return CacheBudget(
        size=config.cache_budget,
        num_sinks=config.cache_sinks,
        num_recent=config.cache_recent,
        score=config.cache_scores,
        lam=0.1 if config.rkv_lambda is None else config.rkv_lambda,
    )


def cache_settings(config: Settings) -> dict[str, Any]:
    """What kept positions depend on where a cache is bounded, all None where it is not."""
    budget = budget_of(config)
    if budget is None:
        return dict.fromkeys(_SETTINGS)
    lam = budget.lam if budget.score == "rkv" else None
    values = (budget.size, config.capture_chunk, budget.sinks, budget.recent, budget.score, lam)
    return dict(zip(_SETTINGS, values, strict=True))


def check_cache(config: Settings) -> None:
    """Check the flags of a bounded cache against each other, and against whole texts.

    Raises:
        ValueError: names the flag and the mend.
    """
    if config.cache_budget is None:
        for name in ("cache_sinks", "cache_recent", "cache_scores"):
            value = getattr(config, name)
            if value != flags_of(StoreSettings)[name].default:
                raise ValueError(
                    f"--{name} {value} is about a cache of bounded size: give --cache_budget"
                )
        return
    asked = f"--cache_budget {config.cache_budget}"
    if config.capture_chunk is None:
        raise ValueError(
            f"{asked} is what stays of a cache after each chunk: say how long these are, by "
            f"--capture_chunk"
        )
    if config.store_tier == "full":
        raise ValueError(
            f"{asked} is about positions that were kept, and --store_tier full reads whole texts: "
            f"leave one of the two out"
        )
    budget_of(config)


def check_stored_cache(config: Settings) -> None:
    """Refuse a run whose teacher reads at every step, with a bounded cache.

    Raises:
        ValueError: names the flag and the mend.
    """
    if config.cache_budget is not None and not config.store:
        raise ValueError(
            f"--cache_budget {config.cache_budget} is how a teacher reads in kava extract: extract "
            f"a store with these flags and name it by --store, or leave it out"
        )
