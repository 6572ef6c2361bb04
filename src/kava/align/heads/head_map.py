"""The structured map of heads and head dims: mix the heads, then map each head's vector.

    y_h = P · Σ_g M[h, g] · x_g

The shape [B, L, H, T, D] is kept throughout, so that a head stays a head: H_t·H_s + D_t·D_s
parameters, where a flat map between the same geometries has H_t·D_t · H_s·D_s.

Shapes: H_t/H_s heads and D_t/D_s head dims of teacher and student, T positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kava.align.layers.layer_map import layer_map
from kava.align.layers.sparse_map import ONE_LAYER, Rows
from kava.align.linear_maps import apply_terms


class HeadwiseMapProjector(nn.Module):
    """Map a teacher's heads and head dim to a student's.

    Uniform initialisation starts from an average of teacher heads and no change of basis, a
    projection that can be used frozen: student head h averages its contiguous, proportional group
    of teacher heads (with fewer teacher than student heads: takes the nearest). Every row of the
    mixer sums to 1, so that scale is kept, and equal geometries start as the identity. A literal
    1/H_t in every entry would give all student heads one and the same vector. The dim map starts
    as the identity, cut (D_t > D_s) or padded with zeros (D_t < D_s): deterministic, with
    orthonormal rows or columns, and each coordinate stays one coordinate.

    Args:
        num_teacher_heads: H_t.
        num_student_heads: H_s.
        teacher_head_dim: D_t.
        student_head_dim: D_s.
        share_dim_proj: one dim map for all heads (`dim_proj` is a linear layer, H_t·H_s + D_t·D_s
            parameters), or one for each student head (`dim_proj` is [H_s, D_s, D_t],
            H_t·H_s + H_s·D_t·D_s parameters).
        init_uniform: start as described above; else the mixer is Xavier-uniform and every dim map
            random orthogonal, drawn from torch's global generator.

    Raises:
        ValueError: a number below 1, or an input whose heads or head dim are not the teacher's.

    Example:
        >>> projector = HeadwiseMapProjector(32, 16, 128, 64)
        >>> projector(torch.randn(2, 12, 32, 5, 128)).shape
        torch.Size([2, 12, 16, 5, 64])
    """

    def __init__(
        self,
        num_teacher_heads: int,
        num_student_heads: int,
        teacher_head_dim: int,
        student_head_dim: int,
        share_dim_proj: bool = True,
        init_uniform: bool = True,
    ) -> None:
        super().__init__()
        numbers = {
            "num_teacher_heads": num_teacher_heads,
            "num_student_heads": num_student_heads,
            "teacher_head_dim": teacher_head_dim,
            "student_head_dim": student_head_dim,
        }
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1")
        self.num_teacher_heads = num_teacher_heads
        self.num_student_heads = num_student_heads
        self.teacher_head_dim = teacher_head_dim
        self.student_head_dim = student_head_dim
        self.init_uniform = init_uniform
        self.head_mixer = nn.Linear(num_teacher_heads, num_student_heads, bias=False)
        self.dim_proj: nn.Linear | nn.Parameter
        if share_dim_proj:
            self.dim_proj = nn.Linear(teacher_head_dim, student_head_dim, bias=False)
        else:
            self.dim_proj = nn.Parameter(
                torch.empty(num_student_heads, student_head_dim, teacher_head_dim)
            )
        self.reset_parameters()

    @property
    def dim_weight(self) -> Tensor:
        """[D_s, D_t] where shared, else [H_s, D_s, D_t]."""
        return self.dim_proj.weight if isinstance(self.dim_proj, nn.Linear) else self.dim_proj

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set every parameter to its initial value."""
        dim_maps = self.dim_weight.view(-1, self.student_head_dim, self.teacher_head_dim)
        if self.init_uniform:
            groups = layer_map(self.num_teacher_heads, self.num_student_heads, "uniform")
            self.head_mixer.weight.copy_(groups)
            dim_maps.copy_(torch.eye(self.student_head_dim, self.teacher_head_dim))
        else:
            nn.init.xavier_uniform_(self.head_mixer.weight)
            for dim_map in dim_maps:
                nn.init.orthogonal_(dim_map)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., H_t, T, D_t] to [..., H_s, T, D_s], with any leading axes."""
        if x.ndim < 3:
            raise ValueError(f"the input must be [..., H, T, D], got shape {list(x.shape)}")
        x_NHTD = x.reshape(-1, *x.shape[-3:])
        y_NHTD = self.project_layers(x_NHTD.unsqueeze(1), ONE_LAYER)
        return y_NHTD.view(*x.shape[:-3], *y_NHTD.shape[-3:])

    def project_layers(self, x_BLHTD: Tensor, rows: Rows) -> Tensor:
        """Sum the layers by `rows` and map the heads in one pass over the input.

        Args:
            x_BLHTD: [B, L_t, H_t, T, D_t].
            rows: the non-zero weights of a layer map, from `sparse_rows`.

        Returns:
            [B, L_s, H_s, T, D_s] in the dtype of the input.
        """
        heads, dim = x_BLHTD.shape[2], x_BLHTD.shape[4]
        if (heads, dim) != (self.num_teacher_heads, self.teacher_head_dim):
            raise ValueError(
                f"the input has {heads} heads of {dim}, but the projector was made for "
                f"{self.num_teacher_heads} heads of {self.teacher_head_dim}"
            )
        return apply_terms(x_BLHTD, self.head_mixer.weight, self.dim_weight, rows)

    def extra_repr(self) -> str:
        """The geometry, for print(module)."""
        return (
            f"{self.num_teacher_heads}×{self.teacher_head_dim} -> "
            f"{self.num_student_heads}×{self.student_head_dim}, init_uniform={self.init_uniform}"
        )
