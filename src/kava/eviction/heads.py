"""The heads of a trace in blocks of bounded size, for scores that read keys and queries.

All layers, samples and heads are laid out in one axis N = B·L·H, so that one batched matmul
serves them all. Where that would take too much memory, N is cut into blocks; short traces are one
block, and a very long one is a block per head.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
D head dim, N the heads of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kava.attention import AttentionForm, HeadForm
from kava.trace import KVTrace

# Numbers in a block's largest intermediate: 4 MiB of float32 stays in a CPU's cache, while a GPU
# wants fewer and larger calls.
CPU_NUMBERS = 2**20
GPU_NUMBERS = 2**26


def cut(length: int, numbers_each: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `length` items of `numbers_each` numbers, at least one item each."""
    budget = CPU_NUMBERS if device.type == "cpu" else GPU_NUMBERS
    step = max(1, budget // max(1, numbers_each))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def flat_keys(trace: KVTrace, start: int, stop: int) -> Tensor:
    """[B·L·H, stop − start, D], the keys of all heads: a view."""
    return trace.keys.flatten(0, 2)[:, start:stop]


def per_head(trace: KVTrace, rows_BX: Tensor) -> Tensor:
    """[B·L·H, X]: each sample's row, such as its mask, repeated for all its heads."""
    return rows_BX.repeat_interleave(trace.num_layers * trace.num_heads, dim=0)


def flat_queries(trace: KVTrace, method: str) -> Tensor:
    """[B·L·H, G, T, D], the queries beside their key/value head: a view.

    Raises:
        ValueError: the trace holds no queries.
    """
    if trace.queries is None:
        raise ValueError(
            f"{method} scores by attention and the trace holds no queries; capture it with "
            f"queries=True"
        )
    queries_BLHGTD = trace.queries.unflatten(2, (trace.num_heads, -1))
    return queries_BLHGTD.flatten(0, 2)


def head_form(trace: KVTrace, scaling: float | None) -> HeadForm:
    """The attention form of all N heads: the trace's, or scaling by 1/√D if it records none.

    Args:
        trace: of any length.
        scaling: in the place of the trace's own; None keeps that.
    """
    B, L, H, _, D = trace.keys.shape
    form = trace.attention or AttentionForm.usual(L, D)
    if scaling is not None:
        form = replace(form, scaling=(scaling,) * L)
    return form.of_heads(B, H, trace.keys.device)


def positions_per_head(trace: KVTrace) -> Tensor:
    """[B·L·H, T]: positions of keys and queries as recorded, or else the count of valid columns."""
    positions = trace.positions
    if positions is None:
        positions = trace.valid_BT().cumsum(dim=1) - 1
    return per_head(trace, positions) if positions.ndim == 2 else positions.flatten(0, 2)


def hide_out_of_reach(
    hidden_NRT: Tensor, trace: KVTrace, form: HeadForm, rows_NR: Tensor, start: int, stop: int
) -> Tensor:
    """`hidden`, and with it the columns start:stop that a layer keeps from the queries at `rows`.

    Args:
        hidden_NRT: bool, or [N, 1, T].
        trace: whose columns they are.
        form: of all its heads.
        rows_NR: the columns of the queries.
        start: the first column of T.
        stop: the column after its last.
    """
    if not form.has_reach:
        return hidden_NRT
    positions_NT = positions_per_head(trace)
    return hidden_NRT | form.out_of_reach(
        positions_NT.gather(1, rows_NR), positions_NT[:, start:stop]
    )


def take_rows(queries_NGTD: Tensor, rows_NR: Tensor) -> Tensor:
    """[N, G, R, D], the queries at the columns `rows_NR` of each head."""
    N, G, T, D = queries_NGTD.shape
    starts_NG1 = T * torch.arange(N * G, device=rows_NR.device).view(N, G, 1)
    # Whole rows by one flat index: many times faster than a gather that repeats it over D.
    taken = queries_NGTD.reshape(-1, D).index_select(0, (starts_NG1 + rows_NR[:, None]).flatten())
    return taken.view(N, G, -1, D)


def clean(part: Tensor, mask: Tensor) -> Tensor:
    """`part` in float32, with zeros wherever `mask` is False (what padding holds is unknown).

    Args:
        part: [..., T, D]; returned unchanged if nothing is masked.
        mask: broadcast to [..., T], bool.
    """
    part = part.float()
    return part if bool(mask.all()) else part.masked_fill(~mask[..., None], 0.0)
