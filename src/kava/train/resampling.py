"""Segment resampling as a configuration asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kava.align.resample import SegmentResampling, parse_segment_numbers

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

REASONING_ONLY = "1:1.0"
INTERPOLATED = "0:1.0,1:1.0,2:1.0"


def resampling_of(config: TrainConfig) -> SegmentResampling | None:
    """How the teacher's segments are warped to the student's slots; None where they are not.

    Raises:
        ValueError: numbers that cannot be read, or flags that exclude each other.
    """
    ratios = parse_segment_numbers(config.segment_ratios, "--segment_ratios")
    alphas = parse_segment_numbers(config.segment_alphas, "--segment_alphas")
    if not config.use_segment_resampling:
        for name, default in (("ratios", REASONING_ONLY), ("alphas", INTERPOLATED)):
            value = getattr(config, f"segment_{name}")
            if value != default:
                raise ValueError(
                    f"--segment_{name} {value} is read by --use_segment_resampling alone: pass "
                    f"it too, or leave this out"
                )
        return None
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
    resampling = SegmentResampling(ratios=ratios, alphas=alphas)
    smooth = [segment for segment, ratio in ratios.items() if ratio and alphas.get(segment, 1.0)]
    if config.key_space == "rotated" and smooth:
        raise ValueError(
            f"--use_segment_resampling would average keys that carry the rotation of different "
            f"positions: pass --key_space unrotated, or --segment_alphas "
            f"{','.join(f'{segment}:0' for segment in smooth)}"
        )
    return resampling
