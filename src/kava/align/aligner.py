"""The aligner: a teacher's keys, values and queries in a student's geometry.

Order: layers, then time, then heads and head dims. Both modes share layers and time, so that in
a comparison of `structured` with `flat` only the map of heads and head dims differs.

Shapes: B batch, L_t/L_s layers, H_t/H_s key/value heads, Hq_t/Hq_s query heads, T_t/T_s
positions, D_t/D_s head dims, of teacher and student.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kava.align.contraction import Rows, is_identity, mix_layers, sparse_rows
from kava.align.flat import FlatStack, KVDimensionProjector
from kava.align.head_map import HeadwiseMapProjector
from kava.align.layer_map import resolve_layer_map
from kava.align.time_warp import TimeWarp, TimeWarper

ALIGNMENT_MODES = ("structured", "flat", "identity")


class AlignedKV(NamedTuple):
    """A teacher's cache in a student's geometry."""

    keys: Tensor
    """[B, L_s, H_s, T_s, D_s]."""
    values: Tensor
    """[B, L_s, H_s, T_s, D_s]."""
    queries: Tensor | None
    """[B, L_s, Hq_s, T_s, D_s], or None."""


class ModelConfig(Protocol):
    """What is read off a Hugging Face config; its `attribute_map` translates the names."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int


class CacheGeometry(NamedTuple):
    """The shape of a model's cache."""

    num_layers: int
    num_heads: int
    num_query_heads: int
    head_dim: int

    @classmethod
    def from_config(cls, config: ModelConfig) -> CacheGeometry:
        """Read a model's geometry off its config.

        `num_key_value_heads` and `head_dim` are optional in Hugging Face configs: without them a
        model has as many key/value as query heads, and splits its hidden size among them.

        Raises:
            ValueError: a config without layers and heads, such as a composite one.
        """
        try:
            num_layers, num_query_heads = config.num_hidden_layers, config.num_attention_heads
        except AttributeError as error:
            raise ValueError(
                f"{type(config).__name__} describes no decoder ({error}); "
                f"pass its text_config, or give the numbers to MapProjectionAligner"
            ) from None
        optional = {
            name: value
            for name in ("num_key_value_heads", "head_dim")
            if (value := getattr(config, name, None)) is not None
        }
        return cls(
            num_layers,
            optional.get("num_key_value_heads", num_query_heads),
            num_query_heads,
            optional["head_dim"]
            if "head_dim" in optional
            else config.hidden_size // num_query_heads,
        )


class MapProjectionAligner(nn.Module):
    """Map a teacher's cache to a student's layers, positions, heads and head dims.

    Args:
        num_teacher_layers: L_t.
        num_student_layers: L_s.
        num_teacher_heads: H_t, key/value heads.
        num_student_heads: H_s, key/value heads.
        teacher_head_dim: D_t.
        student_head_dim: D_s.
        mode: "structured" (`HeadwiseMapProjector`), "flat" (`KVDimensionProjector`), or
            "identity" for equal geometries (no parameters).
        share_dim_proj: structured: one dim map for all heads, or one per head.
        init_uniform: structured: start from group averages, or at random.
        num_teacher_query_heads: Hq_t; default H_t. The query projector maps Hq_t to Hq_s.
        num_student_query_heads: Hq_s; default H_s.
        layer_map: "ratio", "uniform", "skip", the path of a JSON file, or weights [L_s, L_t].
            Part of the state_dict, so that a checkpoint does not depend on the file.
        ratio_map: {segment: density} of the time warp, see `TimeWarper`.
        alpha_map: {segment: alpha} of the time warp, see `TimeWarper`.
        flat_variant: flat: "elastic", "linear" or "residual", see `FlatStack`.

    Raises:
        ValueError: an unknown mode or map, an identity between different geometries, or inputs
            that are not the teacher's geometry.

    Example:
        >>> aligner = MapProjectionAligner(
        ...     num_teacher_layers=24, num_student_layers=12, num_teacher_heads=32,
        ...     num_student_heads=16, teacher_head_dim=64, student_head_dim=64,
        ... )
        >>> sum(parameter.numel() for parameter in aligner.parameters())
        13824
        >>> keys = torch.randn(2, 24, 32, 10, 64)
        >>> aligner(keys, keys, target_length=5).keys.shape
        torch.Size([2, 12, 16, 5, 64])
    """

    layer_weights: Tensor

    def __init__(
        self,
        *,
        num_teacher_layers: int,
        num_student_layers: int,
        num_teacher_heads: int,
        num_student_heads: int,
        teacher_head_dim: int,
        student_head_dim: int,
        mode: str = "structured",
        share_dim_proj: bool = True,
        init_uniform: bool = True,
        num_teacher_query_heads: int | None = None,
        num_student_query_heads: int | None = None,
        layer_map: str | Path | Tensor = "ratio",
        ratio_map: Mapping[int, float] | None = None,
        alpha_map: Mapping[int, float] | None = None,
        flat_variant: str = "elastic",
    ) -> None:
        super().__init__()
        if mode not in ALIGNMENT_MODES:
            raise ValueError(f"mode={mode!r} is unknown; choose from {', '.join(ALIGNMENT_MODES)}")
        self.mode = mode
        self.teacher = CacheGeometry(
            num_teacher_layers,
            num_teacher_heads,
            num_teacher_query_heads or num_teacher_heads,
            teacher_head_dim,
        )
        self.student = CacheGeometry(
            num_student_layers,
            num_student_heads,
            num_student_query_heads or num_student_heads,
            student_head_dim,
        )
        self.time_warper = TimeWarper(ratio_map=ratio_map, alpha_map=alpha_map)
        self._always_warps = bool(ratio_map or alpha_map)
        weights = resolve_layer_map(layer_map, num_teacher_layers, num_student_layers)
        self.register_buffer("layer_weights", weights)
        self._rows: Rows | None = None
        self.register_load_state_dict_post_hook(_forget_rows)
        if mode == "structured":
            self._add_structured(share_dim_proj, init_uniform)
        elif mode == "flat":
            self._add_flat(flat_variant)
        else:
            self._check_identity()

    @classmethod
    def from_configs(
        cls, teacher_config: ModelConfig, student_config: ModelConfig, **options: Any
    ) -> MapProjectionAligner:
        """Make an aligner for two models, from their Hugging Face configs.

        Args:
            teacher_config: the teacher's config; only attributes are read.
            student_config: the student's config.
            options: any further argument of `MapProjectionAligner`.
        """
        teacher = CacheGeometry.from_config(teacher_config)
        student = CacheGeometry.from_config(student_config)
        return cls(
            num_teacher_layers=teacher.num_layers,
            num_student_layers=student.num_layers,
            num_teacher_heads=teacher.num_heads,
            num_student_heads=student.num_heads,
            teacher_head_dim=teacher.head_dim,
            student_head_dim=student.head_dim,
            num_teacher_query_heads=teacher.num_query_heads,
            num_student_query_heads=student.num_query_heads,
            **options,
        )

    def _add_structured(self, share_dim_proj: bool, init_uniform: bool) -> None:
        def projector(teacher_heads: int, student_heads: int) -> HeadwiseMapProjector:
            return HeadwiseMapProjector(
                teacher_heads,
                student_heads,
                self.teacher.head_dim,
                self.student.head_dim,
                share_dim_proj,
                init_uniform,
            )

        self.key_projector = projector(self.teacher.num_heads, self.student.num_heads)
        self.value_projector = projector(self.teacher.num_heads, self.student.num_heads)
        self.query_projector = projector(self.teacher.num_query_heads, self.student.num_query_heads)

    def _add_flat(self, variant: str) -> None:
        teacher, student = self.teacher, self.student
        self.key_value_projector = KVDimensionProjector(
            teacher.num_heads * teacher.head_dim, student.num_heads * student.head_dim, variant
        )
        self.query_stack = FlatStack(
            teacher.num_query_heads * teacher.head_dim,
            student.num_query_heads * student.head_dim,
            variant,
        )

    def _check_identity(self) -> None:
        different = [
            f"{name} {teacher} → {student}"
            for name, teacher, student in zip(CacheGeometry._fields, self.teacher, self.student)
            if teacher != student
        ]
        if different:
            raise ValueError(
                f"mode='identity' needs equal geometries, but these differ: "
                f"{', '.join(different)}; use mode='structured' or mode='flat'"
            )
        if not is_identity(self.layer_rows, self.teacher.num_layers):
            raise ValueError(
                "mode='identity' mixes no layers, but layer_map is not the identity; "
                "leave layer_map out or use mode='structured'"
            )

    @property
    def layer_rows(self) -> Rows:
        """The non-zero weights of the layer map."""
        if self._rows is None:
            self._rows = sparse_rows(self.layer_weights)
        return self._rows

    def time_warp(
        self,
        keys: Tensor,
        segment_ids: Tensor | None = None,
        target_length: int | None = None,
        mask: Tensor | None = None,
    ) -> TimeWarp | None:
        """Where each of the student's slots reads; None where positions stay as they are.

        Positions stay when neither a target length nor a ratio or alpha map is given; with a map
        alone, T_s = T_t.
        """
        if target_length is None and not self._always_warps:
            return None
        if segment_ids is None:
            segment_ids = keys.new_zeros(keys.shape[0], keys.shape[3], dtype=torch.long)
        return self.time_warper.plan(segment_ids, target_length or keys.shape[3], mask)

    def forward(
        self,
        keys: Tensor,
        values: Tensor,
        queries: Tensor | None = None,
        segment_ids: Tensor | None = None,
        target_length: int | None = None,
        mask: Tensor | None = None,
    ) -> AlignedKV:
        """Align a teacher's cache.

        Args:
            keys: [B, L_t, H_t, T_t, D_t].
            values: [B, L_t, H_t, T_t, D_t].
            queries: [B, L_t, Hq_t, T_t, D_t] or None.
            segment_ids: [B, T_t], −1 at padding; only read by the time warp.
            target_length: T_s; None keeps the positions as they are.
            mask: [B, T_t], False at padding; only read by the time warp.
        """
        inputs = {"keys": keys, "values": values, "queries": queries}
        for name, x in inputs.items():
            if x is not None:
                self._check_input(name, x, keys)
        B, T = keys.shape[0], keys.shape[3]
        for name, part in (("segment_ids", segment_ids), ("mask", mask)):
            if part is not None and part.shape != (B, T):
                raise ValueError(f"{name} must be [{B}, {T}], got {list(part.shape)}")
        warp = self.time_warp(keys, segment_ids, target_length, mask)
        return AlignedKV(
            self._align("keys", keys, warp),
            self._align("values", values, warp),
            None if queries is None else self._align("queries", queries, warp),
        )

    def _check_input(self, name: str, x: Tensor, keys: Tensor) -> None:
        heads = self.teacher.num_query_heads if name == "queries" else self.teacher.num_heads
        layers, dim = self.teacher.num_layers, self.teacher.head_dim
        if x.ndim != 5 or (x.shape[1], x.shape[2], x.shape[4]) != (layers, heads, dim):
            raise ValueError(
                f"{name} have shape {list(x.shape)}, but this aligner's teacher needs "
                f"[B, {layers}, {heads}, T, {dim}] (batch, layers, heads, positions, head dim)"
            )
        if (x.shape[0], x.shape[3]) != (keys.shape[0], keys.shape[3]):
            raise ValueError(
                f"{name} have shape {list(x.shape)}, which does not fit the batch and positions "
                f"of keys {list(keys.shape)}"
            )

    def _align(self, name: str, x: Tensor, warp: TimeWarp | None) -> Tensor:
        if self.mode == "structured":
            projector = {
                "keys": self.key_projector,
                "values": self.value_projector,
                "queries": self.query_projector,
            }[name]
            if warp is None:
                return projector.project_layers(x, self.layer_rows)
            # The maps are linear and commute. A warp reads two positions for each slot, so it
            # goes first where that is less than the whole cache, and else onto the smaller result.
            if 2 * warp.weight.shape[1] <= x.shape[3]:
                return projector.project_layers(warp.apply(x), self.layer_rows)
            return warp.apply(projector.project_layers(x, self.layer_rows))
        x = mix_layers(x, self.layer_rows)
        if warp is not None:
            x = warp.apply(x)
        if self.mode == "identity":
            return x
        if name == "queries":
            return self.query_stack.map_heads(x, self.student.num_query_heads)
        stacks = self.key_value_projector
        stack = stacks.key_stack if name == "keys" else stacks.value_stack
        return stack.map_heads(x, self.student.num_heads)

    def extra_repr(self) -> str:
        """The mode and both geometries, for print(module)."""
        return f"mode={self.mode!r}, teacher={self.teacher}, student={self.student}"


def _forget_rows(module: nn.Module, _: Any) -> None:
    assert isinstance(module, MapProjectionAligner)
    module._rows = None
