"""Scaled rotations for the keys of several teachers, by the name that users of the method know.

Shapes: B batch, T positions, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kava.rope.rotary import Rotary, rerotate
from kava.rope.scaling import build_scaling

SCALING_METHODS = ("linear", "ntk", "dynamic")


class MultiTeacherRoPEScaler:
    """Move each teacher's keys from its own rotation to one that is scaled to a student's length.

    The factor of linear and ntk is student_max_len / max_len of the teacher; dynamic grows with the
    text beyond the teacher's max_len. The formulas are those of `kava.rope.build_scaling`; earlier
    programs rotated keys that were rotated already, and took θ·factor^(2/3) for ntk.

    A run does not need it: it takes the rotation out (`--key_space unrotated`), which is exact
    whatever the two models' scalings are.

    Args:
        teacher_configs: of each teacher θ and the length that it was trained on.
        student_max_len: the length that the student was trained on.
        scaling_method: linear, ntk or dynamic.

    Raises:
        ValueError: no teachers, an unknown method, or a number that is not above 0.

    Example:
        >>> scaler = MultiTeacherRoPEScaler([(10_000.0, 2048), (500_000.0, 4096)], 4096)
        >>> keys = [torch.randn(1, 4, 7, 16), torch.randn(1, 2, 7, 64)]
        >>> [torch.equal(a, b) for a, b in zip(scaler.scale_keys(keys), keys)]
        [False, True]
    """

    def __init__(
        self,
        teacher_configs: Sequence[tuple[float, int]],
        student_max_len: int,
        scaling_method: str = "ntk",
    ) -> None:
        if scaling_method not in SCALING_METHODS:
            raise ValueError(
                f"scaling_method={scaling_method!r} is unknown; choose from "
                f"{', '.join(SCALING_METHODS)}"
            )
        if not teacher_configs:
            raise ValueError("there are no teachers: give (θ, length) of at least one")
        for theta, length in (*teacher_configs, (1.0, student_max_len)):
            if not (0 < theta < float("inf") and 0 < length < float("inf")):
                raise ValueError(f"θ={theta} and length={length} must be finite and above 0")
        self.teacher_configs = tuple((theta, length) for theta, length in teacher_configs)
        self.student_max_len = student_max_len
        self.scaling_method = scaling_method

    def scale_keys(
        self,
        teacher_ks: Sequence[Tensor],
        seq_len: int | None = None,
        positions: Tensor | None = None,
    ) -> list[Tensor]:
        """The keys of each teacher in its scaled rotation.

        Args:
            teacher_ks: of each [B, .., T, D], rotated by the teacher, heads of D dims on an axis of
                their own.
            seq_len: length of the text, on which dynamic scaling depends; None: the highest
                position + 1.
            positions: [B, T], where the keys stand; None: 0 to T − 1.

        Raises:
            ValueError: another number of tensors than of teachers, or shapes that do not fit.
        """
        if len(teacher_ks) != len(self.teacher_configs):
            raise ValueError(
                f"keys of {len(teacher_ks)} teachers do not fit {len(self.teacher_configs)}"
            )
        return [
            self._scale(keys, *config, seq_len, positions)
            for keys, config in zip(teacher_ks, self.teacher_configs)
        ]

    def scale_kv_pairs(
        self,
        teacher_ks: Sequence[Tensor],
        teacher_vs: Sequence[Tensor],
        seq_len: int | None = None,
        positions: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """`scale_keys`, and the values as they are: no model rotates them."""
        return self.scale_keys(teacher_ks, seq_len, positions), list(teacher_vs)

    def _scale(
        self,
        keys: Tensor,
        theta: float,
        max_len: int,
        seq_len: int | None,
        positions: Tensor | None,
    ) -> Tensor:
        if keys.ndim < 3:
            raise ValueError(f"keys must be [B, .., T, D], got {list(keys.shape)}")
        B, T, D = keys.shape[0], keys.shape[-2], keys.shape[-1]
        own = Rotary.of(rotary_dim=D, theta=theta)
        options: dict[str, float] = {"factor": self.student_max_len / max_len}
        if self.scaling_method == "dynamic":
            options = {"factor": 1.0, "original_max_position_embeddings": max_len}
        scaling = build_scaling(self.scaling_method, **options)
        scaled = Rotary.of(rotary_dim=D, theta=theta, scaling=scaling)
        if seq_len is not None:
            scaled = scaled.at_length(seq_len)
        if positions is None:
            positions = torch.arange(T, device=keys.device).expand(B, T)
        moved = rerotate(keys.reshape(B, 1, -1, T, D), positions, own, scaled)
        return moved.view(keys.shape)
