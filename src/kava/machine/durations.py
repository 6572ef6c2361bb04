"""Time limits as schedulers spell them."""

from __future__ import annotations

import re

DAY, HOUR, MINUTE = 86_400, 3_600, 60
_FORM = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


def seconds_of(text: str) -> int:
    """A time limit in seconds.

    Args:
        text: in Slurm's forms: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.

    Raises:
        ValueError: another form, or no time at all.

    Example:
        >>> seconds_of("90"), seconds_of("08:00:00"), seconds_of("1-12")
        (5400, 28800, 129600)
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time; write minutes, HH:MM:SS or D-HH:MM:SS")
    parts = [int(part) for part in found["rest"].split(":")]
    units: tuple[int, ...] = (HOUR, MINUTE, 1)
    if found["days"] is not None:
        total = int(found["days"]) * DAY
    else:
        units = ((MINUTE,), (MINUTE, 1), (HOUR, MINUTE, 1))[len(parts) - 1]
        total = 0
    total += sum(part * unit for part, unit in zip(parts, units))
    if not total:
        raise ValueError(f"{text!r} is no time at all; write minutes, HH:MM:SS or D-HH:MM:SS")
    return total


def clock(seconds: float) -> str:
    """Seconds as HH:MM:SS, with as many hours as there are; every scheduler reads it.

    Example:
        >>> clock(129600)
        '36:00:00'
    """
    minutes, rest = divmod(round(seconds), MINUTE)
    hours, minutes = divmod(minutes, MINUTE)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}"
