"""The attention of a few queries to all earlier positions, for scores by the newest queries.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, T positions,
W query positions, D head dim, N = B·L·H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.attention import attention
from kava.eviction.base import Candidates, ascending_indices
from kava.eviction.heads import (
    clean,
    cut,
    flat_keys,
    flat_queries,
    head_form,
    hide_out_of_reach,
    per_head,
    take_rows,
)
from kava.trace import KVTrace

DEFAULT_WINDOW = 8


def resolve_window(window_size: int | None, target_len: int) -> int:
    """The window size for a target length: as given, or one that leaves room for other positions.

    Raises:
        ValueError: a given window that leaves none.
    """
    if window_size is None:
        return DEFAULT_WINDOW if target_len > DEFAULT_WINDOW else max(1, target_len // 2)
    if window_size >= target_len:
        raise ValueError(
            f"window_size={window_size} leaves no room in target_len={target_len} for any other "
            f"position; lower window_size or raise target_len"
        )
    return window_size


def newest(candidates: Candidates, length: int) -> Tensor:
    """[B, T] bool: the last `length` candidates of every sample, or all where it has fewer."""
    older_B1 = candidates.counts[:, None] - length
    return candidates.mask & (candidates.mask.cumsum(dim=1) > older_B1)


def attention_of_rows(
    trace: KVTrace, rows_BT: Tensor, length: int, method: str, scaling: float | None
) -> Tensor:
    """The attention of some query rows to every position, summed over rows, averaged over groups.

    Each row's softmax runs over all valid keys up to itself that its layer sees, the prompt's too.

    Args:
        trace: with queries.
        rows_BT: [B, T] bool, the query rows, at most `length` of each sample. If a sample has
            fewer, its last one counts several times.
        length: W.
        method: the eviction's name, for the message if queries are missing.
        scaling: what q·k is multiplied by; None is the trace's own.

    Returns:
        [B, L, H, T] float32; zero at invalid positions.
    """
    B, L, H, T, D = trace.keys.shape
    queries_NGTD = flat_queries(trace, method)
    columns_BW = ascending_indices(rows_BT, length)
    columns_NW = per_head(trace, columns_BW)
    queries_NGWD = take_rows(queries_NGTD, columns_NW)
    seen_BWT = torch.arange(T, device=rows_BT.device) <= columns_BW[..., None]
    seen_BWT &= trace.valid_BT()[:, None]
    keys_NTD = flat_keys(trace, 0, T)
    valid_NT, hidden_NWT = per_head(trace, trace.valid_BT()), per_head(trace, ~seen_BWT)
    form = head_form(trace, scaling)
    hidden_NWT = hide_out_of_reach(hidden_NWT, trace, form, columns_NW, 0, T)
    G = queries_NGWD.shape[1]
    scores_NT = torch.zeros(B * L * H, T, device=keys_NTD.device)
    for heads in cut(B * L * H, max(G * length * T, T * D), keys_NTD.device):
        keys = clean(keys_NTD[heads], valid_NT[heads])
        queries, hidden_N1WT = queries_NGWD[heads].float(), hidden_NWT[heads][:, None]
        attention_NGWT = attention(queries, keys, form[heads], hidden_N1WT)
        scores_NT[heads] = attention_NGWT.mean(dim=1).sum(dim=1)
    return scores_NT.view(B, L, H, T)
