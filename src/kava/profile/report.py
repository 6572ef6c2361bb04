"""What a profile found, as values and as a table.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A model's name and the geometry of its cache."""

    name: str
    num_layers: int
    num_heads: int
    head_dim: int

    def __str__(self) -> str:
        geometry = f"{self.num_layers} layers × {self.num_heads} key/value heads × {self.head_dim}"
        return f"{self.name}: {geometry}"


@dataclass(frozen=True)
class Profile:
    """What a profile found.

    Attributes:
        mode: the alignment mode.
        teacher: the model that is read.
        student: the model that is trained.
        aligner_parameters: how many the aligner has.
        layer_map: per student layer, the (teacher layer, weight) pairs that it reads.
        shapes: [B, L, H, T, D] of the teacher's cache, of what compression kept of it, of the
            target after alignment, and of the part of the student's cache that is compared.
        seconds: stage → median over the steps.
        step_seconds: median of the whole step.
        peak_bytes: most memory in use during a step, above what was before; None where the
            system does not tell.
        device: where it ran.
        num_steps: measured steps.
    """

    mode: str
    teacher: Model
    student: Model
    aligner_parameters: int
    layer_map: list[list[tuple[int, float]]]
    shapes: dict[str, list[int]]
    seconds: dict[str, float]
    step_seconds: float
    peak_bytes: int | None
    device: str
    num_steps: int

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        peak = "not measured" if self.peak_bytes is None else f"{self.peak_bytes / 1e6:.1f} MB"
        rows = (f"{student} ← {_sum(row)}" for student, row in enumerate(self.layer_map))
        facts = {
            "alignment": f"{self.mode}, {self.aligner_parameters:,} parameters",
            "teacher": self.teacher,
            "student": self.student,
            "layers": ", ".join(rows),
            **self.shapes,
        }
        stages = (
            f"{name:<18}{1000 * seconds:>10.3f}{seconds / total:>9.1%}"
            for name, seconds in self.seconds.items()
        )
        step = f"{'step':<18}{1000 * self.step_seconds:>10.3f}"
        return "\n".join(
            [
                *(f"{name + ':':<17} {fact}" for name, fact in facts.items()),
                f"\n{'stage':<18}{'ms':>10}{'share':>9}",
                *stages,
                f"{step}   (medians of {self.num_steps}, {self.device})",
                f"\npeak memory of a step: {peak}",
                "all finite, shapes fit, gradients reach the student",
            ]
        )


def _sum(row: list[tuple[int, float]]) -> str:
    """A row of the layer map, such as "3" or "0.5·2 + 0.5·3"."""
    return " + ".join(
        f"{layer}" if weight == 1 else f"{weight:.3g}·{layer}" for layer, weight in row
    )
