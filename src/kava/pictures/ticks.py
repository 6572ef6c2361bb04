"""Ticks that say where they are: round places, labelled with every digit that they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FEW, SOME = 3, 6
"""Ticks of a small panel's axis and of a large one's, at most."""

LEAST_RATIO = 5.0
"""From the lower to the upper end of a logarithmic axis."""

LEAST_RISE = 0.1
"""From the lower to the upper end of a linear axis, over the larger of the two."""

ALL_RIGHT = (-0.04, 1.06)
"""Limits of an axis of shares from 0 to 1, with air at both ends for the dots."""


def ticks(axis: Axis, text: Callable[[float], str] | None = None, *, most: int = FEW) -> None:
    """Put ticks at round places of an axis whose limits are set; there are no ticks between them.

    Args:
        axis: of a picture, linear or logarithmic.
        text: a place as text, exact for round numbers; default `plain`.
        most: how many ticks fit.

    Example:
        >>> axes.set_ylim(0, 0.13)
        >>> ticks(axes.yaxis, in_percent)                # at 0, 0.05 and 0.1: 0, 5, 10
    """
    from matplotlib.ticker import NullLocator

    low, high = sorted(axis.get_view_interval())
    places = (log_places if axis.get_scale() == "log" else round_places)(low, high, most)
    axis.set_ticks(places, [(text or plain)(place) for place in places])
    axis.set_minor_locator(NullLocator())


def round_places(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: from two to `most` of them.

    Raises:
        ValueError: limits that are no interval, or fewer than two ticks.

    Example:
        >>> round_places(-0.04, 1.06, 3), round_places(0.6, 1.4, 3)
        ([0.0, 0.5, 1.0], [0.6, 1.4])
    """
    if not (math.isfinite(high - low) and low < high and most >= 2):
        raise ValueError(f"from {low} to {high} with {most} ticks is no axis")
    power = math.floor(math.log10((high - low) / most)) - 1
    finer: list[float] = []
    for exponent in range(power, power + 4):
        for digit in (1, 2, 5):
            found = _multiples(low, high, digit, exponent)
            if len(found) <= most:
                return found if len(found) >= 2 else [finer[0], finer[-1]]
            finer = found
    raise AssertionError(f"no round places from {low} to {high}")


def _multiples(low: float, high: float, digit: int, exponent: int) -> list[float]:
    """Of digit · 10^exponent within the limits, each the float nearest to its decimal form."""
    step, slack = digit * 10.0**exponent, 1e-9
    first, last = math.ceil(low / step - slack), math.floor(high / step + slack)
    return [float(f"{digit * i}e{exponent}") for i in range(first, last + 1)]


def log_places(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or fewer of them; `round_places` where the range is narrow.

    Example:
        >>> log_places(0.008, 0.5, 4), log_places(1.4, 1.9, 3)
        ([0.01, 0.03, 0.1, 0.3], [1.4, 1.6, 1.8])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        places = [float(f"{digit}e{power}") for power in powers for digit in digits]
        found = [place for place in places if low * (1 - 1e-9) <= place <= high * (1 + 1e-9)]
        if len(found) < 2:
            return round_places(low, high, most)
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def plain(place: float) -> str:
    """A place as a number with no more digits than it has.

    Example:
        >>> plain(0.25), plain(1500.0), plain(-2.0)
        ('0.25', '1,500', '−2')
    """
    digits = 0 if place == 0 else max(0, 11 - math.floor(math.log10(abs(place))))
    text = f"{round(place, digits):,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def in_percent(share: float) -> str:
    """A share as a number of per cent; the unit stands beside the axis.

    Example:
        >>> in_percent(0.025), in_percent(1.0)
        ('2.5', '100')
    """
    return plain(round(100 * share, 10))


def in_points(difference: float) -> str:
    """A difference of shares as a number of points, with its sign.

    Example:
        >>> in_points(0.025), in_points(-0.2), in_points(0.0)
        ('+2.5', '−20', '0')
    """
    text = in_percent(difference)
    return f"+{text}" if difference > 0 and text != "0" else text


def percent_axis(axes: Axes, which: str = "y") -> None:
    """An axis of shares from 0 to 1 that says per cent, with air at both ends."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_ylim if which == "y" else axes.set_xlim)(*ALL_RIGHT)
    ticks(axis, in_percent)


def log_axis(panels: Sequence[Axes]) -> None:
    """A logarithmic axis for all that was drawn in panels of one quantity.

    It reaches at least over `LEAST_RATIO`, so that a narrow range does not look like a change.
    Where nothing is above 0 it stays linear.
    """
    above = [y for y in heights(panels) if 0 < y < math.inf]
    low, high = (min(above) / 1.2, max(above) * 1.2) if above else (-0.04, 1.06)
    if above and high / low < LEAST_RATIO:
        middle, reach = (low * high) ** 0.5, LEAST_RATIO**0.5
        low, high = middle / reach, middle * reach
    for axes in panels:
        axes.set_yscale("log" if above else "linear")
        axes.set_ylim(low, high)
        ticks(axes.yaxis, most=4)


def linear_axis(
    panels: Sequence[Axes], text: Callable[[float], str] | None = None, *, from_zero: bool = False
) -> None:
    """An axis for all that was drawn in panels of one quantity that share it.

    It reaches at least over `LEAST_RISE` of its height, so that noise does not look like a change.

    Args:
        panels: that share the axis.
        text: a place as text; default `plain`.
        from_zero: of shares, which it shows from 0 on, and to 10 % at least.
    """
    drawn = [y for y in heights(panels) if math.isfinite(y)] or [0.0, 1.0]
    low, high = min(drawn), max(drawn)
    if from_zero:
        high = max(high, LEAST_RISE)
        limits = (-0.03 * high, 1.05 * high)
    else:
        rise = max(high - low, LEAST_RISE * max(abs(low), abs(high))) or 1.0
        limits = ((low + high) / 2 - 0.55 * rise, (low + high) / 2 + 0.55 * rise)
    panels[0].set_ylim(*limits)
    ticks(panels[0].yaxis, text)


def heights(panels: Sequence[Axes]) -> list[float]:
    """All values of the lines in panels."""
    import numpy as np

    lines = [line.get_ydata() for axes in panels for line in axes.lines]
    return [y for values in lines for y in np.asarray(values, dtype=float).ravel().tolist()]


def step_axis(axes: Axes, last_step: int) -> None:
    """Steps from 0 to the last, with a tick at both ends and in the middle."""
    last_step = max(last_step, 1)
    axes.set_xlim(0, last_step * 1.02)
    places = sorted({0, last_step // 2, last_step})
    axes.set_xticks(places, [plain(place) for place in places])


def count_ticks(axis: Axis, count: int, most: int = 16) -> None:
    """Ticks at `count` things that are counted from 0, or at every second, third, … of them."""
    places: Sequence[int] = range(0, count, -(-count // most))
    axis.set_ticks(list(places), [str(place) for place in places])
