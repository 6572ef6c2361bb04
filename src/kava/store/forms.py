"""The forms in which keys and values are stored, and what each loses.

float32 is exact. bfloat16 and float16 round. int8 stores, for each vector of D numbers (one head
of one layer at one position), the numbers as multiples of a step, which is a 127th of the largest:
no number is off by more than half a step.

Shapes: S slots, L layers, H heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FORMS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
"""Name → the dtype of what is stored."""

STEPS = "_steps"
"""Behind a part's name: the steps of its int8 form."""
_MOST = 127


def pack(name: str, part_SLHD: Tensor, form: str) -> dict[str, Tensor]:
    """A part of a cache as it is stored.

    Args:
        name: keys, values or queries.
        part_SLHD: floating.
        form: a key of `FORMS`.

    Returns:
        The part by name, and of int8 its steps [S, L, H] in float32.

    Raises:
        ValueError: numbers that float16 cannot hold, or that are not finite.
    """
    part = part_SLHD.float()
    if form != "int8":
        packed = part.to(FORMS[form])
        if not bool(packed.isfinite().all()):
            reason = (
                "numbers above 65504, where float16 ends: store them in bfloat16 or float32"
                if bool(part.isfinite().all())
                else "NaN or infinity: the teacher's weights or its dtype are broken"
            )
            raise ValueError(f"the {name} of a sample hold {reason}")
        return {name: packed.contiguous()}
    steps_SLH = part.abs().amax(dim=-1) / _MOST
    if not bool(steps_SLH.isfinite().all()):
        raise ValueError(f"the {name} of a sample hold NaN or infinity")
    whole = (part / steps_SLH.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).round()
    return {name: whole.to(torch.int8).contiguous(), name + STEPS: steps_SLH.contiguous()}


def unpack(name: str, parts: dict[str, Tensor]) -> Tensor:
    """A part as it was packed: a view where it is floating, multiplied out where it is int8."""
    part = parts[name]
    return part if part.dtype != torch.int8 else part * parts[name + STEPS][..., None]


@dataclass
class FormError:
    """What a form lost, over all numbers that were packed.

    Args:
        squares: name of a part → sum of squares of its numbers.
        errors: the same of what was lost.
        worst: the largest loss of a number, relative to the largest number of its vector.
    """

    squares: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)

    def see(self, name: str, part_SLHD: Tensor, packed: dict[str, Tensor]) -> None:
        """Add a part and its stored form."""
        part = part_SLHD.float()
        lost = (unpack(name, packed).float() - part).abs()
        largest = part.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        self.squares[name] = self.squares.get(name, 0.0) + float(part.double().square().sum())
        self.errors[name] = self.errors.get(name, 0.0) + float(lost.double().square().sum())
        worst = float((lost / largest).max()) if lost.numel() else 0.0
        self.worst[name] = max(self.worst.get(name, 0.0), worst)

    def add(self, other: FormError) -> None:
        """Add what another process has measured."""
        for name in other.squares:
            self.squares[name] = self.squares.get(name, 0.0) + other.squares[name]
            self.errors[name] = self.errors.get(name, 0.0) + other.errors[name]
            self.worst[name] = max(self.worst.get(name, 0.0), other.worst[name])

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {"squares": self.squares, "errors": self.errors, "worst": self.worst}

    def relative(self) -> dict[str, float]:
        """Root of the summed squares of what was lost, as a share of that of the numbers."""
        return {
            name: (self.errors[name] / total) ** 0.5 if total else 0.0
            for name, total in self.squares.items()
        }
