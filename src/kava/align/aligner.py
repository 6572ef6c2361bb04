"""The aligner: a teacher's keys, values and queries in a student's geometry.

Order: layers, then time, then heads and head dims. Both modes share layers and time, so that in
a comparison of `structured` with `flat` only the map of heads and head dims differs. In the
direction student to teacher that last map is the student's: the teacher's heads stay as they are.

Shapes: B batch, L_t/L_s layers, H_t/H_s key/value heads, Hq_t/Hq_s query heads, T_t/T_s
positions, D_t/D_s head dims, of teacher and student.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kava.align.geometry import CacheGeometry, ModelConfig
from kava.align.heads.build import Projector, apply_projector, build_projectors, check_options
from kava.align.heads.flat import FlatStack, KVDimensionProjector, StudentToTeacherProjector
from kava.align.heads.head_map import HeadwiseMapProjector
from kava.align.heads.layerwise import LayerwiseProjector
from kava.align.layers.layer_map import resolve_layer_map
from kava.align.layers.sparse_map import Rows, identity_rows, is_identity, sparse_rows
from kava.align.time.time_warp import TimeWarp, TimeWarper
from kava.names import STUDENT_TO_TEACHER, TEACHER_TO_STUDENT


class AlignedKV(NamedTuple):
    """Aligned keys, values and queries, with the H heads and head dim D of the target side."""

    keys: Tensor
    """[B, L_s, H, T_s, D]."""
    values: Tensor
    """[B, L_s, H, T_s, D]."""
    queries: Tensor | None
    """[B, L_s, Hq, T_s, D], or None."""


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
        init_uniform: structured, and flat per layer: start from group averages, or at random.
        num_teacher_query_heads: Hq_t; default H_t. The query projector maps Hq_t to Hq_s.
        num_student_query_heads: Hq_s; default H_s.
        map_queries: make maps of queries; False if queries are never compared.
        layer_map: "ratio", "uniform", "skip", the path of a JSON file, or weights [L_s, L_t].
            Part of the state_dict, so that a checkpoint does not depend on the file.
        ratio_map: {segment: density} of the time warp, see `TimeWarper`.
        alpha_map: {segment: alpha} of the time warp, see `TimeWarper`.
        flat_variant: flat: "elastic" (the default), "linear" or "residual", see `FlatStack`. A
            map of its own for every layer is linear.
        per_layer: a separate map with a bias for every student layer (`LayerwiseProjector`).
        rank: structured per layer: the number of terms that the map is a sum of; default 1.
        direction: "teacher_to_student", or "student_to_teacher": the teacher's cache only has
            its layers mixed and its time warped, and `map_student` brings the student's to its
            heads and head dims. A target that no map touches cannot collapse towards the student.

    Raises:
        ValueError: an unknown mode, map or direction, an identity between different geometries,
            options that do not belong together, or inputs of another geometry.

    Example:
        >>> aligner = MapProjectionAligner(
        ...     num_teacher_layers=24, num_student_layers=12, num_teacher_heads=32,
        ...     num_student_heads=16, teacher_head_dim=64, student_head_dim=64,
        ... )
        >>> aligner.num_parameters
        13824
        >>> keys = torch.randn(2, 24, 32, 10, 64)
        >>> aligner(keys, keys, target_length=5).keys.shape
        torch.Size([2, 12, 16, 5, 64])
    """

    layer_weights: Tensor
    key_projector: HeadwiseMapProjector | LayerwiseProjector
    value_projector: HeadwiseMapProjector | LayerwiseProjector
    query_projector: HeadwiseMapProjector | LayerwiseProjector
    key_value_projector: KVDimensionProjector | StudentToTeacherProjector
    query_stack: FlatStack

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
        map_queries: bool = True,
        layer_map: str | Path | Tensor = "ratio",
        ratio_map: Mapping[int, float] | None = None,
        alpha_map: Mapping[int, float] | None = None,
        flat_variant: str | None = None,
        per_layer: bool = False,
        rank: int | None = None,
        direction: str = TEACHER_TO_STUDENT,
    ) -> None:
        super().__init__()
        check_options(mode, direction, per_layer, rank, flat_variant)
        self.mode = mode
        self.direction = direction
        self.per_layer = per_layer
        self.maps_queries = map_queries
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
        if mode == "identity":
            self._check_identity()
        projectors = build_projectors(
            mode,
            direction,
            *self.mapped,
            num_layers=num_student_layers if per_layer else None,
            rank=rank or 1,
            share_dim_proj=share_dim_proj,
            init_uniform=init_uniform,
            flat_variant=flat_variant or "elastic",
            map_queries=map_queries,
        )
        for name, projector in projectors.items():
            self.add_module(name, projector)

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

    @property
    def mapped(self) -> tuple[CacheGeometry, CacheGeometry]:
        """The source and the target geometry of the maps."""
        sides = (self.teacher, self.student)
        return sides if self.direction == TEACHER_TO_STUDENT else sides[::-1]

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

    def projectors(self) -> dict[str, Projector]:
        """The maps of heads and head dims of keys, of values and, if there is one, of queries.

        Empty in mode identity.
        """
        if self.mode == "identity":
            return {}
        if self.mode == "flat" and not self.per_layer:
            stacks = self.key_value_projector
            found: dict[str, Projector] = {"keys": stacks.key_stack, "values": stacks.value_stack}
            if self.maps_queries:
                found["queries"] = self.query_stack
            return found
        found = {"keys": self.key_projector, "values": self.value_projector}
        if self.maps_queries:
            found["queries"] = self.query_projector
        return found

    @property
    def num_parameters(self) -> int:
        """The number of parameters of all maps of heads and head dims."""
        return sum(parameter.numel() for parameter in self.parameters())

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
        """Which teacher positions each student slot reads; None if positions stay as they are.

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

        Returns:
            The student's layers and positions; heads and head dims are the student's, or in the
            direction student to teacher still the teacher's.
        """
        self.teacher.check("teacher", keys, values, queries)
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

    def map_student(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> AlignedKV:
        """Map a student's cache to the teacher's heads and head dims, layers as they are.

        Args:
            keys: [B, L_s, H_s, T, D_s].
            values: [B, L_s, H_s, T, D_s].
            queries: [B, L_s, Hq_s, T, D_s] or None.

        Returns:
            [B, L_s, H_t, T, D_t], queries with Hq_t heads.

        Raises:
            ValueError: an aligner that maps the teacher, or inputs of another geometry.
        """
        if self.direction != STUDENT_TO_TEACHER:
            raise ValueError(
                f"this aligner maps the teacher's cache (direction={self.direction!r}) and leaves "
                f"the student's as it is; make it with direction={STUDENT_TO_TEACHER!r}"
            )
        self.student.check("student", keys, values, queries)
        rows = identity_rows(self.student.num_layers)
        return AlignedKV(
            self._project("keys", keys, rows),
            self._project("values", values, rows),
            None if queries is None else self._project("queries", queries, rows),
        )

    def _align(self, name: str, x: Tensor, warp: TimeWarp | None) -> Tensor:
        if self.direction == STUDENT_TO_TEACHER:
            return apply_projector(None, x, self.layer_rows, warp)
        return self._project(name, x, self.layer_rows, warp)

    def _project(self, name: str, x: Tensor, rows: Rows, warp: TimeWarp | None = None) -> Tensor:
        if name == "queries" and not self.maps_queries and self.mode != "identity":
            raise ValueError(
                "this aligner has no map of queries (map_queries=False), but queries are given; "
                "leave them out, or make it with map_queries=True"
            )
        target = self.mapped[1]
        num_heads = target.num_query_heads if name == "queries" else target.num_heads
        return apply_projector(self.projectors().get(name), x, rows, warp, num_heads)

    def extra_repr(self) -> str:
        """The mode and both geometries, for print(module)."""
        return f"mode={self.mode!r}, teacher={self.teacher}, student={self.student}"


def _forget_rows(module: nn.Module, _: Any) -> None:
    assert isinstance(module, MapProjectionAligner)
    module._rows = None
