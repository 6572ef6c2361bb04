"""Parts of a batch for one of several teachers, and their results put back in place.

Shapes: B batch, R rows of a part, L layers, H key/value heads, M slots, T text columns, D head dim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from kava.data.collate import Batch
from kava.trace import KVTrace


def text_of(batch: Batch, n: int) -> Batch:
    """A batch as the n-th of several teachers reads it: its own text is `teacher`, as that of the
    sample before the first."""
    parts: dict[str, Any] = {name: part for name, part in batch.items() if name != "sides"}
    side = batch["sides"][n]
    if side is not None:
        parts["teacher"] = side
    if "before" in batch:
        parts["before"] = text_of(batch["before"], n)
    return cast("Batch", parts)


def part_of(batch: Batch, rows: Tensor) -> Batch:
    """The samples `rows` of a batch."""
    size = len(batch["ids"])

    def take(part: Any) -> Any:
        if isinstance(part, Tensor) and part.ndim and len(part) == size:
            return part[rows]
        if isinstance(part, dict):
            return {name: take(one) for name, one in part.items()}
        return part

    parts = {name: take(part) for name, part in batch.items() if name not in ("before", "sides")}
    parts["ids"] = [batch["ids"][row] for row in rows.tolist()]
    return cast("Batch", parts)


def place(trace: KVTrace, rows: Tensor, batch_size: int) -> KVTrace:
    """A trace of R samples as part of a batch; the others' positions are masked.

    Args:
        trace: [R, L, H, M, D].
        rows: [R], where its samples stand in the batch.
        batch_size: B.
    """
    trace = replace(trace, mask=trace.valid_BT())
    return trace._map(
        lambda part: part.new_zeros(batch_size, *part.shape[1:]).index_copy(0, rows, part)
    )


def to_text(trace: KVTrace, columns: Tensor, length: int) -> KVTrace:
    """Kept positions back at their columns of the text; the other columns are masked.

    Args:
        trace: [B, L, H, M, D].
        columns: [B, M].
        length: T.
    """
    mask_BM = trace.valid_BT()
    # masked slots go to a column behind the text, which is cut off
    at_BM = torch.where(mask_BM, columns, length)

    def scatter(part: Tensor) -> Tensor:
        if part.ndim == 5:
            B, L, H, M, D = part.shape
            index = at_BM[:, None, None, :, None].expand(B, L, H, M, D)
            return part.new_zeros(B, L, H, length + 1, D).scatter(3, index, part)[..., :length, :]
        if part.ndim == 2:
            return part.new_zeros(len(part), length + 1).scatter(1, at_BM, part)[:, :length]
        raise ValueError("positions that differ by head have no place in a text")

    return replace(trace, mask=mask_BM)._map(scatter)
