"""Compute attention weights from queries and keys as the model's family does.

Families differ in the steps from q·k to the weights: a scaling other than 1/√D (Gemma, Granite,
GPT-2's layers), a soft cap of the logits (Gemma 2), a window or chunk that limits what a layer sees
(Mistral, Gemma 3, Llama 4), an attention sink that takes a share of every row (gpt-oss).
`AttentionForm` stores this for every layer and is part of a trace; only `attention_logits` applies
it.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, Hq = H·G, R query
rows, T positions, D head dim, N = B·L·H heads in the order of a trace's own axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor


class LayerForm(NamedTuple):
    """The form of one layer; see `AttentionForm`."""

    scaling: float
    softcap: float | None = None
    window: int | None = None
    chunk: int | None = None
    sinks: Tensor | None = None
    """[Hq]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionForm:
    """The steps of each layer of a model from q·k to its attention weights.

    `kava.capture` reads it from the model while it runs. Queries and keys are those of a trace:
    after their norms and rotation, and with any factors of the family.

    Args:
        scaling: [L], the factor of q·k.
        softcap: [L], c in c · tanh(q·k / c); None for a layer without one. Empty: no layer has one.
        window: [L], number of positions that a query sees, including its own; None for all earlier
            ones.
        chunk: [L], length of the chunks that attention does not cross; None for a single chunk.
        sinks: [L, Hq] logits in every row's softmax that belong to no position; −inf for a layer
            without one.

    Raises:
        ValueError: the parts have different numbers of layers.

    Example:
        >>> form = AttentionForm(scaling=(0.5, 0.25))
        >>> form.num_layers, form.layers([1]).scaling
        (2, (0.25,))
    """

    scaling: tuple[float, ...]
    softcap: tuple[float | None, ...] = ()
    window: tuple[int | None, ...] = ()
    chunk: tuple[int | None, ...] = ()
    sinks: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("softcap", "window", "chunk"):
            given = getattr(self, name)
            if len(given) not in (0, self.num_layers):
                raise ValueError(
                    f"{name} has {len(given)} layers, but scaling has {self.num_layers}"
                )
            if all(value is None for value in given):
                object.__setattr__(self, name, ())
        if self.sinks is not None and (self.sinks.ndim != 2 or len(self.sinks) != self.num_layers):
            raise ValueError(
                f"sinks must be [{self.num_layers}, Hq], got {tuple(self.sinks.shape)}"
            )

    @classmethod
    def usual(cls, num_layers: int, head_dim: int) -> AttentionForm:
        """The form of Llama and most others, and the default of a trace: only scaling by 1/√D."""
        return cls(scaling=(head_dim**-0.5,) * num_layers)

    @classmethod
    def of_layers(cls, layers: Sequence[LayerForm]) -> AttentionForm:
        """The form of a model, from the forms of its layers in order."""
        scaling, softcap, window, chunk, sinks = zip(*layers)
        known = [part for part in sinks if part is not None]
        if known:
            none = torch.full_like(known[0], -torch.inf)
            stacked = torch.stack([none if part is None else part for part in sinks])
        return cls(
            scaling=scaling,
            softcap=softcap,
            window=window,
            chunk=chunk,
            sinks=stacked if known else None,
        )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.scaling)

    @property
    def has_reach(self) -> bool:
        """Whether some layer does not see all positions before a query."""
        return bool(self.window or self.chunk)

    def layers(self, index: Sequence[int]) -> AttentionForm:
        """The form of the layers `index`."""
        picked = {
            field.name: tuple(part[layer] for layer in index)
            for field in fields(self)
            if isinstance(part := getattr(self, field.name), tuple) and part
        }
        sinks = None if self.sinks is None else self.sinks[list(index)]
        return replace(self, **picked, sinks=sinks)

    def detach(self) -> AttentionForm:
        """The same form, detached from the autograd graph: sinks are parameters of the model."""
        return self if self.sinks is None else replace(self, sinks=self.sinks.detach())

    def to(self, device: torch.device | str | None) -> AttentionForm:
        """The same form, with its sinks on `device`."""
        return self if self.sinks is None else replace(self, sinks=self.sinks.to(device=device))

    def of_heads(self, batch_size: int, num_heads: int, device: torch.device) -> HeadForm:
        """The form of all N = B·L·H heads of a trace."""

        def spread(part: tuple[float | None, ...], absent: float) -> float | Tensor:
            known = [absent if value is None else value for value in part]
            if len(set(known)) == 1:
                return known[0]
            per_layer = torch.tensor(known, device=device).repeat_interleave(num_heads)
            return per_layer.repeat(batch_size)[:, None, None]

        sinks = self.sinks
        if sinks is not None:
            sinks = sinks.unflatten(1, (num_heads, -1)).flatten(0, 1).repeat(batch_size, 1)
        return HeadForm(
            scaling=spread(self.scaling, 1.0),
            softcap=spread(self.softcap, torch.inf) if self.softcap else None,
            window=spread(self.window, _UNLIMITED) if self.window else None,
            chunk=spread(self.chunk, _UNLIMITED) if self.chunk else None,
            sinks=sinks,
        )


_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadForm:
    """An `AttentionForm` expanded over N heads, or over a slice of them.

    Args:
        scaling: one number for all heads, or [N, 1, 1].
        softcap: the same shapes; None if no layer has one, infinite in layers without one.
        window: as softcap.
        chunk: as softcap.
        sinks: [N, G], or None.
    """

    scaling: float | Tensor
    softcap: float | Tensor | None = None
    window: float | Tensor | None = None
    chunk: float | Tensor | None = None
    sinks: Tensor | None = None

    def __getitem__(self, heads: slice) -> HeadForm:
        """The form of some of the heads."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return HeadForm(
            **{
                name: part[heads] if isinstance(part, Tensor) else part
                for name, part in parts.items()
            }
        )

    @property
    def has_reach(self) -> bool:
        """Whether some head does not see all positions before a query."""
        return self.window is not None or self.chunk is not None

    def out_of_reach(self, rows_NR: Tensor, columns_NT: Tensor) -> Tensor:
        """[N, R, T] bool: positions that a window or a chunk hides from a query.

        Args:
            rows_NR: positions of the queries.
            columns_NT: positions of the keys. The first axis of both may be 1.
        """
        rows, columns = rows_NR[:, :, None], columns_NT[:, None]
        far = torch.zeros_like(rows - columns, dtype=torch.bool)
        if self.window is not None:
            far = rows - columns >= self.window
        if self.chunk is not None:
            far = far | (rows // self.chunk != columns // self.chunk)
        return far


def attention_logits(
    queries_NGRD: Tensor, keys_NTD: Tensor, form: HeadForm, *hidden: Tensor
) -> Tensor:
    """The model's attention logits: their softmax over the last axis is a row's attention.

    Args:
        queries_NGRD: [N, G, R, D].
        keys_NTD: [N, T, D].
        form: of these N heads.
        hidden: bool masks that broadcast to [N, G, R, T]; an entry that is True in one of them gets
            the smallest finite number instead of −∞, so that a row without any position is finite
            in the forward and the backward pass.

    Returns:
        [N, G, R, T]; with sinks [N, G, R, T + 1], the sinks in the last column.
    """
    G, R = queries_NGRD.shape[1:3]
    scaled_NQD = queries_NGRD.flatten(1, 2) * form.scaling
    logits_NQT = scaled_NQD @ keys_NTD.transpose(1, 2)
    if isinstance(form.softcap, Tensor):
        capped = form.softcap * torch.tanh(logits_NQT / form.softcap)
        logits_NQT = torch.where(form.softcap.isinf(), logits_NQT, capped)
    elif form.softcap is not None:
        logits_NQT = form.softcap * torch.tanh(logits_NQT / form.softcap)
    logits_NGRT = logits_NQT.unflatten(1, (G, R))
    least = torch.finfo(logits_NGRT.dtype).min
    for mask in hidden:
        logits_NGRT.masked_fill_(mask, least)
    if form.sinks is None:
        return logits_NGRT
    sinks_NGR1 = form.sinks.to(logits_NGRT.dtype).clamp(min=least)[:, :, None, None]
    return torch.cat([logits_NGRT, sinks_NGR1.expand(-1, -1, R, -1)], dim=-1)


def attention(queries_NGRD: Tensor, keys_NTD: Tensor, form: HeadForm, *hidden: Tensor) -> Tensor:
    """The attention weights of some rows, equal to those of the model's own layers.

    Args:
        queries_NGRD: [N, G, R, D], as in `attention_logits`.
        keys_NTD: [N, T, D].
        form: of these N heads.
        hidden: bool masks that broadcast to [N, G, R, T].

    Returns:
        [N, G, R, T]. A row's weights sum to 1, to less with a sink, and to 0 if a window or a chunk
        hides all positions. Otherwise the weights of a fully hidden row are meaningless.

    Example:
        >>> x = torch.zeros(1, 2, 4)
        >>> attention(x[:, None], x, HeadForm(scaling=0.5)).tolist()
        [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    logits = attention_logits(queries_NGRD, keys_NTD, form, *hidden)
    return normalise(logits, keys_NTD.shape[1], *(hidden if form.has_reach else ()))


def normalise(logits: Tensor, num_positions: int, *hidden: Tensor) -> Tensor:
    """The softmax of attention logits, without the sink's column.

    Args:
        logits: [..., T] or, with a sink, [..., T + 1]; see `attention_logits`.
        num_positions: T.
        hidden: masks that broadcast to [..., T]: these positions get no weight, even in a row where
            all positions are hidden.
    """
    weights = logits.softmax(dim=-1)[..., :num_positions]
    for mask in hidden:
        weights = weights.masked_fill(mask, 0.0)
    return weights
