"""What a study can find: its power before the run, its minimum detectable effect after it."""

from __future__ import annotations


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
    if shift - bound > 30:  # far beyond; scipy's noncentral t loses its digits there
        return 1.0
    found = stats.nct.sf(bound, degrees, shift) + stats.nct.cdf(-bound, degrees, shift)
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
    from scipy import optimize

    if not alpha < power < 1:
        raise ValueError(f"power={power} must lie between alpha={alpha} and 1, such as 0.8")
    shift = optimize.brentq(
        lambda one: power_of_t(one, 1.0, degrees, alpha=alpha) - power, 0.0, 1e4
    )
    return float(shift * error)
