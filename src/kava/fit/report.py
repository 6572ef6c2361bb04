"""How good a calibrated map is: layer by layer, beside the controls that a good map must beat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

CLEAR_MARGIN = 0.05
"""A map that explains less than this beyond its controls is called no better than they are."""


class Quality(NamedTuple):
    """How well a map predicts held-out positions."""

    r_squared: float
    """The share of the variance that is explained: 1 exact, 0 as good as the mean."""
    cosine: float
    """The mean cosine of mapped and actual vectors of a head, after removing the mean."""


@dataclass(frozen=True)
class LayerFit:
    """The map of one student layer's keys, values or queries.

    Args:
        part: "keys", "values" or "queries".
        layer: the student's layer.
        ridge: the ridge strength of the map, relative to the mean eigenvalue of its inputs.
        calibrated: the map.
        full: the full matrix, whose R² the map's structure is measured against.
        wrong_sample: a map of the same form, fitted to and judged on vectors of other samples.
        random: a random map of the same form, each output scaled and shifted as is best.
    """

    part: str
    layer: int
    ridge: float
    calibrated: Quality
    full: Quality
    wrong_sample: Quality
    random: Quality

    @property
    def margin(self) -> float:
        """How much more of the variance the map explains than the better control."""
        return self.calibrated.r_squared - max(self.wrong_sample.r_squared, self.random.r_squared)


class RankFit(NamedTuple):
    """What structured maps of some number of terms explain of held-out keys and values."""

    rank: int
    num_parameters: int
    """Of the maps of all parts and layers."""
    r_squared: dict[str, tuple[float, ...]]
    """"keys" and "values" → R² of each layer."""
    full: dict[str, tuple[float, ...]]
    """The same of the full matrices."""

    def mean(self, part: str) -> float:
        """R² of keys or of values, averaged over layers."""
        return mean(self.r_squared[part])

    @property
    def loss(self) -> float:
        """How much less R² than the full map: the larger loss of keys and values."""
        return max(mean(self.full[part]) - self.mean(part) for part in self.full)


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What a calibration did, and how good the maps are on held-out positions.

    Args:
        direction: "teacher_to_student" or "student_to_teacher".
        rank: terms of the structured maps; None for full matrices.
        full_rank: terms with which every map of keys and values could be written.
        per_head: a dim map for each output head, or one per term.
        num_positions: positions that the maps were fitted to.
        num_held_out: positions that they are judged on.
        num_parameters: of all maps that were fitted.
        layers: every part and layer.
        ranks: those that rank "auto" tried, the last of them chosen.

    Example:
        >>> report = calibrate(aligner, pairs, held_out)
        >>> print(report)
        >>> Path("calibration.json").write_text(report.to_json())
    """

    direction: str
    rank: int | None
    full_rank: int
    per_head: bool
    num_positions: int
    num_held_out: int
    num_parameters: int
    layers: tuple[LayerFit, ...]
    ranks: tuple[RankFit, ...] = ()

    def part(self, name: str) -> tuple[LayerFit, ...]:
        """The layers of keys, values or queries, in order."""
        return tuple(fit for fit in self.layers if fit.part == name)

    def warnings(self) -> list[str]:
        """One line for each of keys, values and queries that names the layers whose map fails."""
        lines = []
        for part in dict.fromkeys(fit.part for fit in self.layers):
            useless = [fit for fit in self.part(part) if fit.margin < CLEAR_MARGIN]
            if useless:
                layers = ", ".join(str(fit.layer) for fit in useless)
                lines.append(
                    f"warning: {part} of layer {layers}: the map explains less than "
                    f"{CLEAR_MARGIN} more of the variance than its controls; it carries next to "
                    f"nothing of the sample that it reads"
                )
        return lines

    def __str__(self) -> str:
        """A table, with the warnings below it."""
        form = "full matrices"
        if self.rank is not None:
            dims = "a dim map per head" if self.per_head else "shared dim maps"
            form = f"rank {self.rank} of {self.full_rank}, {dims}"
        source, target = self.direction.split("_to_")
        lines = [
            f"calibration, {source} to {target}: {form}; {self.num_parameters:,} parameters, "
            f"fitted to {self.num_positions:,} positions, judged on {self.num_held_out:,} others",
            "                  held-out R²                     direction (cosine)",
            "part     layer     map   full  wrong random       map  wrong random     ridge",
        ]
        for fit in self.layers:
            judged = (fit.calibrated, fit.full, fit.wrong_sample, fit.random)
            r_squared = "".join(f"{quality.r_squared:7.3f}" for quality in judged)
            directed = (fit.calibrated, fit.wrong_sample, fit.random)
            cosine = "".join(f"{quality.cosine:7.3f}" for quality in directed)
            lines.append(f"{fit.part:8} {fit.layer:5} {r_squared}   {cosine}  {fit.ridge:8.0e}")
        if self.ranks:
            lines.append(
                "mean R² by rank (keys, values): "
                + "; ".join(
                    f"{tried.rank}: {tried.mean('keys'):.3f}, {tried.mean('values'):.3f}"
                    for tried in self.ranks
                )
            )
        return "\n".join([*lines, *self.warnings()])

    def as_dict(self) -> dict[str, Any]:
        """All numbers by the names of the fields; a quality is {r_squared, cosine}."""
        layers = [
            {
                name: value._asdict() if isinstance(value, Quality) else value
                for name, value in vars(fit).items()
            }
            for fit in self.layers
        ]
        return {**vars(self), "layers": layers, "ranks": [fit._asdict() for fit in self.ranks]}

    def to_json(self) -> str:
        """`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2)
