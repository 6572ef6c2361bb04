"""Segment resampling as a configuration asks for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kava.align.resample import SegmentResampling
    from kava.train.config import TrainConfig

NUM_SEGMENTS = 3
REASONING_ONLY = "1:1.0"
INTERPOLATED = "0:1.0,1:1.0,2:1.0"


def parse_segment_numbers(text: str, flag: str, most: float = math.inf) -> dict[int, float]:
    """Numbers by segment, from the form `0:1.0,1:0.5,2:1.0`.

    Args:
        text: the numbers.
        flag: where they were given, for messages.
        most: the largest that is allowed.

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
    """Hold `--segment_ratios` to its form.

    Raises:
        ValueError: another form, or ratios that leave every segment out.
    """
    if not any(parse_segment_numbers(text, "--segment_ratios").values()):
        raise ValueError(
            f"--segment_ratios {text} leave every segment out; give one a share above 0"
        )


def check_alphas(text: str) -> None:
    """Hold `--segment_alphas` to its form.

    Raises:
        ValueError: another form.
    """
    parse_segment_numbers(text, "--segment_alphas", most=1)


def check_resampling(config: TrainConfig) -> None:
    """Refuse flags of the resampling that exclude each other, or that nothing would read.

    Raises:
        ValueError: such flags.
    """
    if not config.use_segment_resampling:
        for name, default in (("ratios", REASONING_ONLY), ("alphas", INTERPOLATED)):
            value = getattr(config, f"segment_{name}")
            if value != default:
                raise ValueError(
                    f"--segment_{name} {value} is read by --use_segment_resampling alone: pass "
                    f"it too, or leave this out"
                )
        return
    if config.kv_method != "full":
        raise ValueError(
            f"--use_segment_resampling reads whole segments, of which --kv_method "
            f"{config.kv_method} keeps a part: pass --kv_method full"
        )
    if config.kv_scope not in (None, "model"):
        raise ValueError(
            f"--use_segment_resampling reads the same places in every layer and head: leave out "
            f"--kv_scope {config.kv_scope}"
        )
    ratios, alphas = _numbers(config)
    smooth = [segment for segment, ratio in ratios.items() if ratio and alphas.get(segment, 1.0)]
    if config.key_space == "rotated" and smooth:
        raise ValueError(
            f"--use_segment_resampling would average keys that carry the rotation of different "
            f"positions: pass --key_space unrotated, or --segment_alphas "
            f"{','.join(f'{segment}:0' for segment in smooth)}"
        )


def resampling_of(config: TrainConfig) -> SegmentResampling | None:
    """How the teacher's segments are warped to the student's slots; None where they are not."""
    if not config.use_segment_resampling:
        return None
    from kava.align.resample import SegmentResampling

    ratios, alphas = _numbers(config)
    return SegmentResampling(ratios=ratios, alphas=alphas)


def _numbers(config: TrainConfig) -> tuple[dict[int, float], dict[int, float]]:
    return (
        parse_segment_numbers(config.segment_ratios, "--segment_ratios"),
        parse_segment_numbers(config.segment_alphas, "--segment_alphas"),
    )
