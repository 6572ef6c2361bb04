"""Parse the per-segment numbers of the resampling flags."""

from __future__ import annotations

import math

NUM_SEGMENTS = 3
REASONING_ONLY = "1:1.0"
INTERPOLATED = "0:1.0,1:1.0,2:1.0"


def parse_segment_numbers(text: str, flag: str, most: float = math.inf) -> dict[int, float]:
    """Parse numbers by segment, in the form `0:1.0,1:0.5,2:1.0`.

    Args:
        text: the value of the flag.
        flag: the flag's name, for messages.
        most: the largest allowed number.

    Raises:
        ValueError: another form, a segment named twice, one that does not exist, or a number that
            is negative, above `most`, or not finite.

    Example:
        >>> parse_segment_numbers("0:1.0,1:0.5", "--segment_ratios")
        {0: 1.0, 1: 0.5}
    """
    numbers: dict[int, float] = {}
    for part in text.split(","):
        name, _, value = part.partition(":")
        try:
            segment, number = int(name), float(value)
        except ValueError:
            raise ValueError(
                f"{flag} {text!r}: {part!r} is not segment:number, as in 0:1.0,1:0.5,2:1.0"
            ) from None
        if segment in numbers or not 0 <= segment < NUM_SEGMENTS:
            raise ValueError(
                f"{flag} {text!r}: name each of the segments 0 (prompt), 1 (reasoning) and "
                f"2 (answer) once at most"
            )
        if not (0 <= number <= most and math.isfinite(number)):
            bound = "finite and not negative" if math.isinf(most) else f"from 0 to {most:g}"
            raise ValueError(f"{flag} {text!r}: {part.strip()} must be {bound}")
        numbers[segment] = number
    return numbers


def check_ratios(text: str) -> None:
    """Check the form of `--segment_ratios`.

    Raises:
        ValueError: another form, or ratios that exclude every segment.
    """
    if not any(parse_segment_numbers(text, "--segment_ratios").values()):
        raise ValueError(
            f"--segment_ratios {text} leave every segment out; give one a share above 0"
        )


def check_alphas(text: str) -> None:
    """Check the form of `--segment_alphas`.

    Raises:
        ValueError: another form.
    """
    parse_segment_numbers(text, "--segment_alphas", most=1)
