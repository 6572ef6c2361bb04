"""What a study can find: its power before the run, its minimum detectable effect after it."""

from __future__ import annotations

import math


def power_of_t(effect: float, error: float, degrees: float, *, alpha: float = 0.05) -> float:
    """How often a two-sided t test finds a true effect.

    Args:
        effect: the true difference; its sign does not matter.
        error: standard error of the estimated difference.
        degrees: of freedom.
        alpha: the test's level.

    Returns:
        The probability of p < alpha, by the noncentral t distribution.

    Example:
        >>> round(power_of_t(0.1, 0.03, 8), 2)
        0.83
    """
    from scipy import stats

    if not error > 0 or not degrees > 0 or not 0 < alpha < 1:
        raise ValueError(
            f"error={error} and degrees={degrees} must be above 0, alpha={alpha} between 0 and 1"
        )
    bound = stats.t.ppf(1 - alpha / 2, degrees)
    shift = abs(effect) / error
    # the lower tail by symmetry: as nct.cdf(-bound, …) scipy answers nan where it is tiny
    found = stats.nct.sf(bound, degrees, shift) + stats.nct.sf(bound, degrees, -shift)
    return min(1.0, float(found))


def detectable_effect(
    error: float, degrees: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true difference that a two-sided t test finds with a given power.

    Args:
        error: standard error of the estimated difference.
        degrees: of freedom.
        alpha: the test's level.
        power: how often it is to be found, between alpha and 1.

    Example:
        >>> round(detectable_effect(0.03, 8), 4)
        0.096
    """
    from scipy import optimize, stats

    if not alpha < power < 1:
        raise ValueError(f"power={power} must lie between alpha={alpha} and 1, such as 0.8")
    bound = float(stats.t.ppf(1 - alpha / 2, degrees))
    shift = optimize.brentq(
        lambda one: power_of_t(one, 1.0, degrees, alpha=alpha) - power,
        0.0,
        10 * bound + 10,
        xtol=1e-6,
    )
    return float(shift * error)


def power_before(
    *,
    effect: float,
    num_seeds: int,
    num_items: int,
    seed_std: float,
    accuracy: float = 0.5,
    item_correlation: float = 0.0,
    item_effect_std: float = 0.0,
    alpha: float = 0.05,
) -> float:
    """The power of the crossed test of a study that is still to be run.

    The spread of the difference is made up of the runs' (2 seed_std² / S), of the items on which
    the arms differ more or less (item_effect_std² / N), and of what is left: right or wrong is a
    throw with the variance p (1 − p), of which the share item_correlation belongs to the item,
    is the same in both arms and cancels.

    Args:
        effect: the true gain in accuracy that is to be found.
        num_seeds: runs per arm, S.
        num_items: items, N.
        seed_std: standard deviation of the true accuracy between runs of one arm.
        accuracy: of the baseline.
        item_correlation: of the answers of two runs to an item, from 0, the careful guess,
            to below 1.
        item_effect_std: standard deviation of the gain between items.
        alpha: the test's level; with k comparisons, alpha / k is the careful one.

    Raises:
        ValueError: a value outside its range; fewer than two seeds.

    Example:
        >>> round(power_before(effect=0.1, num_seeds=5, num_items=1000, seed_std=0.05), 2)
        0.75
    """
    error, degrees = _expected_error(
        effect, num_seeds, num_items, seed_std, accuracy, item_correlation, item_effect_std
    )
    return power_of_t(effect, error, degrees, alpha=alpha)


def seeds_needed(
    *,
    effect: float,
    num_items: int,
    seed_std: float,
    accuracy: float = 0.5,
    item_correlation: float = 0.0,
    item_effect_std: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    most: int = 1000,
) -> int:
    """The fewest seeds per arm with which the crossed test finds an effect.

    Args:
        effect: as in `power_before`.
        num_items: likewise.
        seed_std: likewise.
        accuracy: likewise.
        item_correlation: likewise.
        item_effect_std: likewise.
        alpha: likewise.
        power: how often the effect is to be found.
        most: where to give up.

    Raises:
        ValueError: `most` seeds do not do: the effect is too small for so few items.

    Example:
        >>> seeds_needed(effect=0.1, num_items=1000, seed_std=0.05)
        6
    """
    for num_seeds in range(2, most + 1):
        found = power_before(
            effect=effect,
            num_seeds=num_seeds,
            num_items=num_items,
            seed_std=seed_std,
            accuracy=accuracy,
            item_correlation=item_correlation,
            item_effect_std=item_effect_std,
            alpha=alpha,
        )
        if found >= power:
            return num_seeds
    raise ValueError(
        f"{most} seeds do not find an effect of {effect} with power {power}; take more than "
        f"{num_items} items, or look for a larger effect"
    )


def _expected_error(
    effect: float,
    num_seeds: int,
    num_items: int,
    seed_std: float,
    accuracy: float,
    item_correlation: float,
    item_effect_std: float,
) -> tuple[float, float]:
    """The standard error of the difference and its degrees of freedom, as `crossed` adds them."""
    if num_seeds < 2 or num_items < 2:
        raise ValueError(
            f"{num_seeds} seeds and {num_items} items show no spread; take at least 2 of each"
        )
    if not 0 <= accuracy <= 1 or not 0 < abs(effect) <= 1:
        raise ValueError(f"accuracy={accuracy} must lie in [0, 1], effect={effect} in (0, 1]")
    if not 0 <= accuracy + effect <= 1:
        raise ValueError(
            f"effect={effect} on accuracy={accuracy} leaves [0, 1]; name a smaller effect"
        )
    spreads = (seed_std, item_effect_std)
    if not 0 <= item_correlation < 1 or not all(0 <= std < math.inf for std in spreads):
        raise ValueError(
            f"item_correlation={item_correlation} must lie in [0, 1), seed_std={seed_std} and "
            f"item_effect_std={item_effect_std} at 0 or above"
        )
    throws = sum(p * (1 - p) for p in (accuracy, accuracy + effect)) * (1 - item_correlation)
    runs = (2 * seed_std**2 + throws / num_items) / num_seeds
    items = item_effect_std**2 / num_items
    if runs + items <= 0:
        raise ValueError(
            "accuracies of 0 and 1 without any spread leave nothing to chance; name a seed_std"
        )
    degrees = (runs + items) ** 2 / (runs**2 / (2 * num_seeds - 2) + items**2 / (num_items - 1))
    return (runs + items) ** 0.5, degrees
