"""More than one comparison at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for having asked several questions.

    Compared with alpha, the adjusted ones keep the probability of even one false positive below
    it, whatever the questions have to do with one another (Holm, Scandinavian Journal of
    Statistics 1979); computed by statsmodels.

    Args:
        p_values: one per comparison, each between 0 and 1.

    Returns:
        The adjusted ones, in the same order.

    Raises:
        ValueError: a p-value outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} is no probability")
    if len(p_values) < 2:
        return [float(p) for p in p_values]
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]
