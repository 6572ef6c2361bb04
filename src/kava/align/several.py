"""The maps of several teachers, by the names that users of the method know.

Shapes: B batch, L_s/L_t layers, H_s/H_t heads and D_s/D_t head dims of student and teacher, T
positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kava.align.heads.flat import flatten_heads, unflatten_heads
from kava.align.heads.head_map import HeadwiseMapProjector
from kava.align.layers.layer_map import layer_map


def build_multi_teacher_layer_map(
    teacher_layer_counts: Sequence[int], student_layer_count: int, strategy: str = "ratio"
) -> list[Tensor]:
    """`layer_map` for each of several teachers.

    Args:
        teacher_layer_counts: L_t of each.
        student_layer_count: L_s.
        strategy: ratio, uniform or skip.

    Returns:
        [L_s, L_t] for each, rows summing to 1; earlier programs had dictionaries from a student's
        layer to pairs of a teacher's layer and its weight.

    Raises:
        ValueError: an unknown strategy, or a number of layers below 1.

    Example:
        >>> [list(weights.shape) for weights in build_multi_teacher_layer_map([24, 32], 12)]
        [[12, 24], [12, 32]]
    """
    return [layer_map(count, student_layer_count, strategy) for count in teacher_layer_counts]


class MultiTeacherHeadDimAdapter(nn.Module):
    """Two `HeadwiseMapProjector` for each teacher: of its keys, and of its values.

    Args:
        teacher_configs: of each teacher H_t·D_t and H_t: the features of a cached position and its
            key/value heads. Under grouped queries these are fewer than the hidden size and the
            attention heads.
        student_dim: H_s·D_s.
        student_heads: H_s.
        use_conv: changes nothing: a convolution of width 1 is the same linear map.
        init_identity: start from groups of heads and no change of basis, see
            `HeadwiseMapProjector`; else at random.

    Raises:
        ValueError: no teachers, or features that the heads do not divide.

    Example:
        >>> import torch
        >>> adapter = MultiTeacherHeadDimAdapter([(96, 6), (128, 4)], 64, 4)
        >>> caches = [torch.randn(2, 5, 96), torch.randn(2, 5, 128)]
        >>> keys, values = adapter(caches, caches)
        >>> [list(one.shape) for one in keys]
        [[2, 5, 64], [2, 5, 64]]
    """

    def __init__(
        self,
        teacher_configs: Sequence[tuple[int, int]],
        student_dim: int,
        student_heads: int,
        use_conv: bool = False,
        init_identity: bool = True,
    ) -> None:
        super().__init__()
        if not teacher_configs:
            raise ValueError("there are no teachers: give (H·D, H) of at least one")
        self.teacher_configs = tuple((dim, heads) for dim, heads in teacher_configs)
        for whose, dim, heads in (
            *((f"teacher {n}", *pair) for n, pair in enumerate(self.teacher_configs)),
            ("the student", student_dim, student_heads),
        ):
            if heads < 1 or dim < 1 or dim % heads:
                raise ValueError(
                    f"{whose} has {dim} features and {heads} heads: give features of all heads "
                    f"together, a multiple of the number of heads"
                )

        def projectors() -> nn.ModuleList:
            return nn.ModuleList(
                HeadwiseMapProjector(
                    heads,
                    student_heads,
                    dim // heads,
                    student_dim // student_heads,
                    init_uniform=init_identity,
                )
                for dim, heads in self.teacher_configs
            )

        self.key_maps, self.value_maps = projectors(), projectors()

    def forward(
        self, teacher_ks: Sequence[Tensor], teacher_vs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Map the keys and values of each teacher.

        Args:
            teacher_ks: of each teacher [B, T, H_t·D_t], or [.., H_t, T, D_t] with leading axes.
            teacher_vs: the same.

        Returns:
            [B, T, H_s·D_s], or [.., H_s, T, D_s].

        Raises:
            ValueError: another number of tensors than of teachers, or another shape.
        """
        for name, given in (("keys", teacher_ks), ("values", teacher_vs)):
            if len(given) != len(self.teacher_configs):
                raise ValueError(
                    f"{name} of {len(given)} teachers do not fit {len(self.teacher_configs)}"
                )
        return (
            [self._map(n, self.key_maps[n], x) for n, x in enumerate(teacher_ks)],
            [self._map(n, self.value_maps[n], x) for n, x in enumerate(teacher_vs)],
        )

    def _map(self, n: int, projector: nn.Module, x: Tensor) -> Tensor:
        dim, heads = self.teacher_configs[n]
        if x.ndim > 3:
            mapped: Tensor = projector(x)
            return mapped
        if x.ndim < 3 or x.shape[-1] != dim:
            raise ValueError(
                f"teacher {n}'s cache must be [B, T, {dim}] or [.., {heads}, T, {dim // heads}], "
                f"got {list(x.shape)}"
            )
        return flatten_heads(projector(unflatten_heads(x[:, None], heads)))[:, 0]
