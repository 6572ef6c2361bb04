"""Learning curves as one figure: how much of a run was spent right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def area_under_curve(steps: ArrayLike, values: ArrayLike) -> float:
    """The mean height of a learning curve over its steps, by the trapezoidal rule.

    Of two curves that end alike, the one that rose earlier has the larger area. 1.0 is a curve of
    accuracies that was 1 from its first step on; curves are comparable over the same steps.

    Args:
        steps: at least two, rising.
        values: at each step, such as accuracies between 0 and 1.

    Raises:
        ValueError: other lengths, steps that do not rise, a value that is not finite.

    Example:
        >>> area_under_curve([0, 100, 200], [0.0, 1.0, 1.0])
        0.75
    """
    steps_T, values_T = (np.asarray(one, dtype=float) for one in (steps, values))
    if steps_T.ndim != 1 or steps_T.shape != values_T.shape or steps_T.size < 2:
        raise ValueError(
            f"a curve needs as many values as steps, at least two, but has "
            f"{list(values_T.shape)} and {list(steps_T.shape)}"
        )
    if not (np.isfinite(steps_T).all() and np.isfinite(values_T).all()):
        raise ValueError("a curve with a step or a value that is not finite has no area")
    if not (np.diff(steps_T) > 0).all():
        raise ValueError("the steps of a curve must rise; sort them, and keep one value per step")
    return float(np.trapezoid(values_T, steps_T) / (steps_T[-1] - steps_T[0]))
