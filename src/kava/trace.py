"""The key/value trace of a transformer, the central data structure of KaVa.

A model's forward computes keys and values in every layer. `KVTrace` stores them in one axis order,
with the information needed to select, move and compare them: the validity mask, the segment of
every position (prompt, reasoning, answer), and the position id of each vector.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T positions, D head dim,
M kept positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kava.attention import AttentionForm
from kava.names import SCOPES, Scope

Index = Tensor | Sequence[int] | slice


class Segment(IntEnum):
    """The segment of a position; padding is −1."""

    PADDING = -1
    PROMPT = 0
    REASONING = 1
    ANSWER = 2


@dataclass(frozen=True, kw_only=False)
class KVTrace:
    """Keys and values of all layers, with the data that belong to their positions.

    Args:
        keys: [B, L, H, T, D].
        values: [B, L, H, T, D].
        queries: [B, L, Hq, T, D] or None. Hq is a multiple of H (grouped-query attention).
        mask: [B, T] bool, True at valid positions; None means that all are valid.
        segment_ids: [B, T] or, where kept positions differ by layer and head, [B, L, H, T]
            integers of `Segment`.
        positions: [B, T] or [B, L, H, T]: the position ids at which keys and queries were
            rotated (or would be rotated, for un-rotated keys).
        scope: how kept positions are shared after compression: "head" (each layer and head keeps
            its own), "layer" or "model". None for an uncompressed trace.
        rotated: whether keys and queries carry the rotary embedding of `positions`.
        attention: form of the model's attention weights. `kava.capture` records it with the
            queries; None means only scaling by 1/√D.

    Raises:
        ValueError: a part's shape does not fit the keys'.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor | None = None
    mask: Tensor | None = None
    segment_ids: Tensor | None = None
    positions: Tensor | None = None
    scope: Scope | None = None
    rotated: bool = True
    attention: AttentionForm | None = None

    def __post_init__(self) -> None:
        if self.keys.ndim != 5:
            raise ValueError(f"keys must be [B, L, H, T, D], got shape {tuple(self.keys.shape)}")
        B, L, H, T, D = self.keys.shape
        if self.values.shape[:4] != self.keys.shape[:4]:
            raise ValueError(
                f"values {tuple(self.values.shape)} do not fit keys {tuple(self.keys.shape)}"
            )
        if self.queries is not None:
            q = self.queries.shape
            if len(q) != 5 or (q[0], q[1], q[3], q[4]) != (B, L, T, D) or q[2] % H:
                raise ValueError(
                    f"queries {tuple(q)} do not fit keys {tuple(self.keys.shape)}: "
                    f"expected [{B}, {L}, a multiple of {H}, {T}, {D}]"
                )
        if self.mask is not None and self.mask.shape != (B, T):
            raise ValueError(f"mask must be [{B}, {T}], got {tuple(self.mask.shape)}")
        for name in ("segment_ids", "positions"):
            part = getattr(self, name)
            if part is not None and part.shape not in ((B, T), (B, L, H, T)):
                raise ValueError(
                    f"{name} must be [{B}, {T}] or [{B}, {L}, {H}, {T}], got {tuple(part.shape)}"
                )
        if self.scope is not None and self.scope not in SCOPES:
            raise ValueError(f"scope={self.scope!r} is unknown; choose from {', '.join(SCOPES)}")
        if self.attention is not None and self.attention.num_layers != L:
            raise ValueError(
                f"attention describes {self.attention.num_layers} layers, and keys have {L}"
            )

    @property
    def batch_size(self) -> int:
        """B."""
        return self.keys.shape[0]

    @property
    def num_layers(self) -> int:
        """L."""
        return self.keys.shape[1]

    @property
    def num_heads(self) -> int:
        """H, the number of key/value heads."""
        return self.keys.shape[2]

    @property
    def length(self) -> int:
        """T."""
        return self.keys.shape[3]

    @property
    def head_dim(self) -> int:
        """D."""
        return self.keys.shape[4]

    def valid_BT(self) -> Tensor:
        """[B, T] bool: the mask, or all True without one."""
        if self.mask is not None:
            return self.mask.bool()
        return torch.ones(self.batch_size, self.length, dtype=torch.bool, device=self.keys.device)

    def _map(self, fn: Any, **others: Any) -> KVTrace:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped = {name: fn(part) for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **mapped, **others)

    def detach(self) -> KVTrace:
        """The same trace, detached from the autograd graph."""
        form = None if self.attention is None else self.attention.detach()
        return self._map(lambda part: part.detach(), attention=form)

    def to(self, device: torch.device | str | None = None, dtype: Any = None) -> KVTrace:
        """Move every part to `device`; cast the floating ones to `dtype`."""

        def move(part: Tensor) -> Tensor:
            return part.to(device=device, dtype=dtype if part.is_floating_point() else None)

        form = None if self.attention is None else self.attention.to(device)
        return self._map(move, attention=form)

    def in_float32(self) -> KVTrace:
        """The same trace with its floating parts in at least float32.

        For computations with a half-precision cache, to avoid further rounding.
        """
        return self.to(dtype=torch.promote_types(self.keys.dtype, torch.float32))

    def slice(self, start: int | None = None, stop: int | None = None) -> KVTrace:
        """The trace of positions start:stop."""
        cut = slice(start, stop)

        def take(part: Tensor) -> Tensor:
            return part[..., cut, :] if part.ndim == 5 else part[..., cut]

        return self._map(take)

    def samples(self, index: Index) -> KVTrace:
        """The trace of the samples `index` of the batch."""
        return self._map(lambda part: part[index])

    def layers(self, index: Index) -> KVTrace:
        """The trace of the layers `index`."""
        form = self.attention
        if form is not None:
            all_layers = torch.arange(self.num_layers, device=self.keys.device)
            form = form.layers(all_layers[index].tolist())
        return self._map(lambda part: part[:, index] if part.ndim >= 4 else part, attention=form)

    def gather(
        self, indices: Tensor, mask: Tensor | None = None, scope: Scope | None = None
    ) -> KVTrace:
        """Select positions by index, in all parts of the trace.

        Args:
            indices: [B, M] (shared) or [B, L, H, M]: indices into the T axis. Query heads
                follow the key/value head of their group.
            mask: [B, M] bool, the mask of the result; default: gathered from this mask.
            scope: recorded in the result.

        Returns:
            A trace of length M. Positions and segment ids are [B, M] when `indices` is, and
            [B, L, H, M] otherwise.
        """
        B, L, H, T, _ = self.keys.shape
        if indices.shape[:-1] not in ((B,), (B, L, H)):
            raise ValueError(
                f"indices must be [{B}, M] or [{B}, {L}, {H}, M], got {tuple(indices.shape)}"
            )
        shared = indices.ndim == 2
        wide = indices[:, None, None].expand(B, L, H, -1) if shared else indices

        def heads(part: Tensor) -> Tensor:
            groups = part.shape[2] // H
            index = wide.repeat_interleave(groups, dim=2) if groups > 1 else wide
            # index whole rows: a gather along T would read one index per number
            num_rows = B * L * part.shape[2]
            first = torch.arange(num_rows, device=index.device).view(B, L, -1, 1) * T
            rows = part.reshape(-1, part.shape[-1]).index_select(0, (index + first).flatten())
            return rows.view(*index.shape, part.shape[-1])

        def per_position(part: Tensor) -> Tensor:
            if part.ndim == 2 and shared:
                return part.gather(1, indices)
            if part.ndim == 2:
                part = part[:, None, None].expand(B, L, H, T)
            return part.gather(3, wide)

        if mask is None and self.mask is not None:
            if not shared:
                raise ValueError("gathering by [B, L, H, M] indices needs the result's mask")
            mask = self.mask.gather(1, indices)
        return replace(
            self,
            keys=heads(self.keys),
            values=heads(self.values),
            queries=None if self.queries is None else heads(self.queries),
            mask=mask,
            segment_ids=None if self.segment_ids is None else per_position(self.segment_ids),
            positions=None if self.positions is None else per_position(self.positions),
            scope=scope,
        )


def join_samples(traces: Sequence[KVTrace]) -> KVTrace:
    """Join the samples of several traces into one batch; shorter ones are right-padded, masked.

    Args:
        traces: at least one trace; they may differ only in samples and lengths.

    Example:
        >>> traces = [KVTrace(*torch.zeros(2, 1, 1, 1, length, 4)) for length in (2, 3)]
        >>> join_samples(traces).mask.tolist()
        [[True, True, False], [True, True, True]]
    """
    if len(traces) == 1:
        return traces[0]
    length = max(trace.length for trace in traces)
    if any(trace.length < length for trace in traces):
        traces = [_padded(trace, length) for trace in traces]
    elif any(trace.mask is not None for trace in traces):
        traces = [replace(trace, mask=trace.valid_BT()) for trace in traces]
    first = traces[0]
    joined: dict[str, Any] = {
        field.name: torch.cat([getattr(trace, field.name) for trace in traces])
        for field in fields(first)
        if isinstance(getattr(first, field.name), Tensor)
    }
    return replace(first, **joined)


def join_columns(traces: Sequence[KVTrace]) -> KVTrace:
    """Join the positions of several traces of the same samples into one trace, in their order.

    Args:
        traces: at least one; they have the same parts. Positions and segments are [B, L, H, T] if
            those of one trace are.

    Example:
        >>> traces = [KVTrace(*torch.zeros(2, 1, 1, 1, length, 4)) for length in (2, 3)]
        >>> join_columns(traces).length
        5
    """
    first = traces[0]
    if len(traces) == 1:
        return first
    joined: dict[str, Any] = {}
    for field in fields(first):
        parts = [getattr(trace, field.name) for trace in traces]
        if field.name == "mask" and any(part is not None for part in parts):
            parts = [trace.valid_BT() for trace in traces]
        if not isinstance(parts[0], Tensor):
            continue
        if parts[0].ndim == 5:
            joined[field.name] = torch.cat(parts, dim=3)
            continue
        if any(part.ndim == 4 for part in parts):
            parts = [
                part if part.ndim == 4 else part[:, None, None].expand(*trace.keys.shape[:4])
                for part, trace in zip(parts, traces)
            ]
        joined[field.name] = torch.cat(parts, dim=-1)
    return replace(first, **joined)


def _padded(trace: KVTrace, length: int) -> KVTrace:
    """The trace, right-padded with invalid positions."""
    missing = length - trace.length
    trace = replace(trace, mask=trace.valid_BT())

    def extend(part: Tensor) -> Tensor:
        size = (0, 0, 0, missing) if part.ndim == 5 else (0, missing)
        return torch.nn.functional.pad(part, size)

    return trace._map(extend)


def iter_past(past_key_values: Any) -> Iterable[tuple[Any, Any]]:
    """The (keys, values) of each layer, from a Hugging Face `Cache` or a sequence of pairs."""
    if past_key_values is None:
        raise ValueError(
            "past_key_values is None: call the model with use_cache=True and without gradient "
            "checkpointing, which empties the cache"
        )
    for index, layer in enumerate(past_key_values):
        if len(layer) < 2 or layer[0] is None or layer[1] is None:
            raise ValueError(f"layer {index} of past_key_values holds no keys and values")
        yield layer[0], layer[1]


def stack_past_kv(past_key_values: Any) -> Any:
    """Stack a model's cache into one array.

    Args:
        past_key_values: a Hugging Face `Cache`, or a sequence of (keys, values) per layer, each
            [B, H, T, D], of torch tensors or numpy arrays.

    Returns:
        [L, 2, B, H, T, D], bit-exact; a numpy array for numpy input, else a tensor that keeps
        dtype, device and gradients.

    Raises:
        ValueError: an empty cache, or layers whose shapes differ.

    Example:
        >>> past = [(torch.zeros(2, 8, 50, 64), torch.ones(2, 8, 50, 64))] * 4
        >>> stack_past_kv(past).shape
        torch.Size([4, 2, 2, 8, 50, 64])
    """
    layers = list(iter_past(past_key_values))
    if not layers:
        raise ValueError("past_key_values holds no layers")
    shapes = {tuple(part.shape) for layer in layers for part in layer}
    if len(shapes) > 1:
        raise ValueError(
            f"layers differ in shape ({sorted(shapes)}): a sliding-window cache was truncated; "
            f"pass past_key_values=DynamicCache() without a config to keep all positions"
        )
    if isinstance(layers[0][0], np.ndarray):
        return np.stack([np.stack(layer) for layer in layers])
    return torch.stack([torch.stack(layer) for layer in layers])
