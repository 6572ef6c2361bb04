"""Frequencies of rotary embeddings, and the ways in which they are scaled for longer texts.

A pair of dims i of R/2 turns by θ^(−2i/R) radians per position (Su et al., arXiv 2104.09864). A
model that was trained on short texts reads longer ones when its frequencies are lowered, each
scaling in its own way. A scaling is one dataclass: its fields are the numbers that a Hugging Face
config names, its method the formula. All agree with those of transformers up to float32 rounding.

Shapes: R rotary dims of a head.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

ROPE_SCALINGS: dict[str, type[RopeScaling]] = {}
"""Name → scaling; the names are those of `rope_type` in a Hugging Face config, and `ntk`."""

Scaling = TypeVar("Scaling", bound="type[RopeScaling]")


def register_scaling(name: str) -> Callable[[Scaling], Scaling]:
    """Register a scaling under `name`."""

    def register(scaling: Scaling) -> Scaling:
        ROPE_SCALINGS[name] = scaling
        return scaling

    return register


class RopeScaling(ABC):
    """A rule that computes a model's frequencies from its base θ."""

    @abstractmethod
    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """The frequencies, [R/2] in float32, radians per position.

        Args:
            rotary_dim: R.
            theta: the base.
            length: positions of the text (its highest position id + 1), for scalings that
                depend on it; None is a short text.
        """

    @property
    def attention_scaling(self) -> float:
        """The factor that rotated keys and queries are multiplied by."""
        return 1.0

    @property
    def num_positions(self) -> int | None:
        """The length up to which frequencies are those of short texts; None: for all lengths."""
        return None


@dataclass(frozen=True, kw_only=True)
class ByLength(RopeScaling):
    """A scaling whose frequencies depend on the length of the text, beyond the original one."""

    original_max_position_embeddings: int

    @property
    def num_positions(self) -> int:
        """The original length."""
        return self.original_max_position_embeddings


def _unscaled(rotary_dim: int, theta: float) -> Tensor:
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.int64).float() / rotary_dim
    return 1.0 / theta**exponent


@register_scaling("default")
@dataclass(frozen=True, kw_only=True)
class NoScaling(RopeScaling):
    """θ^(−2i/R), at any length."""

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """The plain frequencies."""
        return _unscaled(rotary_dim, theta)


@register_scaling("linear")
@dataclass(frozen=True, kw_only=True)
class LinearScaling(RopeScaling):
    """Position interpolation: every frequency divided by `factor` (Chen et al., 2306.15595)."""

    factor: float

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """All frequencies, divided."""
        return _unscaled(rotary_dim, theta) / self.factor


@register_scaling("ntk")
@dataclass(frozen=True, kw_only=True)
class NTKScaling(RopeScaling):
    """NTK-aware scaling: a larger base, so that the slowest pair slows down by `factor`.

    θ' = θ · factor^(R/(R − 2)) (bloc97, 2023; YaRN, arXiv 2309.00071, section 3.1): the fastest
    pair stays as it is, the slowest is divided by `factor`.
    """

    factor: float

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """The frequencies of a larger base."""
        return _unscaled(rotary_dim, theta * self.factor ** (rotary_dim / (rotary_dim - 2)))


@register_scaling("dynamic")
@dataclass(frozen=True, kw_only=True)
class DynamicScaling(ByLength):
    """NTK-aware scaling that grows with the text: none up to the original length.

    The factor of a text of n positions is factor·n/original − (factor − 1) (emozilla, 2023).
    """

    factor: float

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """The frequencies of a base that is larger the longer the text is."""
        original = self.original_max_position_embeddings
        stretch = max(length or original, original) / original
        grown = NTKScaling(factor=self.factor * stretch - (self.factor - 1))
        return grown.inv_freq(rotary_dim, theta)


@register_scaling("yarn")
@dataclass(frozen=True, kw_only=True)
class YarnScaling(RopeScaling):
    """YaRN: slow pairs are interpolated, fast ones left, a ramp between (arXiv 2309.00071).

    A pair that turns more than `beta_fast` times within the original length keeps its frequency,
    one that turns less than `beta_slow` times has it divided by `factor`. Keys and queries grow by
    0.1·ln(factor) + 1, which sharpens attention over the longer text.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """Frequencies divided, or not, by how often they turn within the original length."""

        def pair_that_turns(times: float) -> float:
            turns = self.original_max_position_embeddings / (times * 2 * math.pi)
            return rotary_dim * math.log(turns) / (2 * math.log(theta))

        low, high = pair_that_turns(self.beta_fast or 32), pair_that_turns(self.beta_slow or 1)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary_dim - 1)
        if low == high:
            high += 0.001
        pair = torch.arange(rotary_dim // 2, dtype=torch.float32)
        interpolated = ((pair - low) / (high - low)).clamp(0, 1)
        plain = _unscaled(rotary_dim, theta)
        return plain / self.factor * interpolated + plain * (1 - interpolated)

    @property
    def attention_scaling(self) -> float:
        """Above 1 where `factor` is."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._growth(self.mscale) / self._growth(self.mscale_all_dim)
        return self._growth(1.0)

    def _growth(self, mscale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0


@register_scaling("llama3")
@dataclass(frozen=True, kw_only=True)
class Llama3Scaling(RopeScaling):
    """Llama 3.1: pairs are divided by `factor` by their wavelength (arXiv 2407.21783).

    Wavelengths above original/`low_freq_factor` are divided, those below original/
    `high_freq_factor` are left, those between are blended.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """Frequencies divided, or not, by their wavelength."""
        plain = _unscaled(rotary_dim, theta)
        turns = self.original_max_position_embeddings * plain / (2 * math.pi)
        band = self.high_freq_factor - self.low_freq_factor
        kept = ((turns - self.low_freq_factor) / band).clamp(0, 1)
        return plain / self.factor * (1 - kept) + plain * kept


@register_scaling("longrope")
@dataclass(frozen=True, kw_only=True)
class LongRopeScaling(ByLength):
    """LongRoPE: one divisor per pair, with other divisors beyond the original length (2402.13753).

    Keys and queries grow by sqrt(1 + ln(factor)/ln(original)), at any length.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float
    attention_factor: float | None = None

    def inv_freq(self, rotary_dim: int, theta: float, length: int | None = None) -> Tensor:
        """Frequencies divided by the factors of short or of long texts."""
        long = length is not None and length > self.original_max_position_embeddings
        divisor = torch.tensor(self.long_factor if long else self.short_factor)
        if len(divisor) != rotary_dim // 2:
            raise ValueError(
                f"longrope has {len(divisor)} factors, but {rotary_dim} rotary dims are "
                f"{rotary_dim // 2} pairs"
            )
        return _unscaled(rotary_dim, theta) / divisor

    @property
    def attention_scaling(self) -> float:
        """Above 1 where `factor` is."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.factor <= 1:
            return 1.0
        return math.sqrt(1 + math.log(self.factor) / math.log(self.num_positions))


def build_scaling(name: str = "default", **options: Any) -> RopeScaling:
    """A scaling by its name.

    Args:
        name: one of `ROPE_SCALINGS`.
        options: the fields of that scaling.

    Raises:
        ValueError: an unknown name or option, or an option that is missing.

    Example:
        >>> build_scaling("linear", factor=4.0).inv_freq(4, 10000.0)
        tensor([0.2500, 0.0025])
    """
    if name not in ROPE_SCALINGS:
        raise ValueError(f"rope scaling {name!r} is unknown; choose {', '.join(ROPE_SCALINGS)}")
    scaling = ROPE_SCALINGS[name]
    known = [part.name for part in fields(scaling)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise ValueError(
                f"rope scaling {name!r} has no option {option!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
    try:
        return scaling(**options)
    except TypeError as problem:
        raise ValueError(f"rope scaling {name!r} needs {', '.join(known)}: {problem}") from None


def scaling_of(rope: Mapping[str, Any], max_position_embeddings: int) -> RopeScaling:
    """The scaling that a Hugging Face config's `rope_parameters` describe.

    Args:
        rope: `config.rope_parameters`, or one layer type's part of it.
        max_position_embeddings: the config's; dynamic scaling counts from it, and where yarn or
            longrope give no `factor` it follows from it.

    Raises:
        ValueError: a `rope_type` that is not in `ROPE_SCALINGS`, or a number that is missing.

    Example:
        >>> scaling_of({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 2048)
        DynamicScaling(original_max_position_embeddings=2048, factor=2.0)
    """
    name = rope.get("rope_type", "default")
    if name not in ROPE_SCALINGS:
        raise ValueError(f"rope_type {name!r} is unknown; it is one of {', '.join(ROPE_SCALINGS)}")
    known = {part.name for part in fields(ROPE_SCALINGS[name])}  # type: ignore[arg-type]
    options = {key: value for key, value in rope.items() if key in known and value is not None}
    if name == "dynamic":
        options["original_max_position_embeddings"] = max_position_embeddings
    original = options.get("original_max_position_embeddings")
    if name in ("yarn", "longrope") and "factor" not in options and original:
        options["factor"] = max_position_embeddings / original
    for key in ("short_factor", "long_factor"):
        if key in options:
            options[key] = tuple(options[key])
    return build_scaling(name, **options)
