"""Verify that attention computed from a trace equals the model's own.

A family may change its queries, keys or weights in unknown ways. So one row of every layer is
recomputed from the trace and compared with the model's output in the same forward; a model whose
attention differs is refused before anything is scored.

Shapes: L layers, H key/value heads, G query heads per key/value head, Hq = H·G, T positions,
D head dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.attention import attention
from kava.models.queries import WITHOUT_ATTENTION, QueryRecorder
from kava.trace import KVTrace

TOLERANCE = 1e-2
"""Largest ‖rebuilt − given‖ / ‖given‖ of equal layers; GPUs may round float32, too."""
TOLERANCE_OF_HALF = 5e-2


def with_queries(model: PreTrainedModel, trace: KVTrace, recorder: QueryRecorder) -> KVTrace:
    """Add the queries of its forward and the form of attention to a trace.

    Args:
        model: that was read.
        trace: trace of one forward.
        recorder: recorder of that forward.

    Raises:
        ValueError: no queries, or fewer query heads than key/value heads.
    """
    B, L, H, T, D = trace.keys.shape
    queries = recorder.stacked() if len(recorder.forwards) <= 1 else None
    if queries is None or queries.shape != (B, L, queries.shape[2], T, D) or queries.shape[2] % H:
        raise ValueError(
            f"the attention of {type(model).__name__} cannot be rebuilt: it reads other keys than "
            f"those it caches, or reads them more than once in a layer; {WITHOUT_ATTENTION}"
        )
    return replace(trace, queries=queries, attention=recorder.attention())


@torch.no_grad()
def check_row(
    model: PreTrainedModel, trace: KVTrace, sample: int, row: int, outputs: list[Tensor]
) -> None:
    """Refuse a model if a row of attention rebuilt from the trace differs from its own.

    Args:
        model: that was read.
        trace: trace of the whole forward, with queries.
        sample: index of a sample in the batch.
        row: a valid column of that sample.
        outputs: the attention output of every layer there, [Hq, D] each.

    Raises:
        ValueError: names the first layer that differs.
    """
    one = trace.detach().samples([sample]).slice(0, row + 1)
    assert one.queries is not None
    assert one.attention is not None
    _, L, H, T, _ = one.keys.shape
    form = one.attention.of_heads(1, H, one.keys.device)
    # padding may contain anything, including NaN
    padded_T1 = ~one.valid_BT()[0, :, None]
    keys_NTD, values_NTD = (
        part.float().masked_fill(padded_T1, 0.0).flatten(0, 2) for part in (one.keys, one.values)
    )
    queries_NG1D = one.queries[..., -1:, :].float().unflatten(2, (H, -1)).flatten(0, 2)
    hidden_N1T = ~one.valid_BT()[:, None].expand(L * H, 1, T)
    if form.has_reach:
        assert one.positions is not None
        hidden_N1T = hidden_N1T | form.out_of_reach(one.positions[:, -1:], one.positions)
    weights_NG1T = attention(queries_NG1D, keys_NTD, form, hidden_N1T[:, None])
    rebuilt_LX = (weights_NG1T @ values_NTD[:, None]).view(L, -1)
    given_LX = torch.stack(outputs).float().flatten(1)
    off_L = (rebuilt_LX - given_LX).norm(dim=1) / given_LX.norm(dim=1).clamp(min=1e-12)
    exact = one.keys.dtype in (torch.float32, torch.float64)
    same_L = off_L <= (TOLERANCE if exact else TOLERANCE_OF_HALF)
    # outputs that are not finite cannot be compared
    wrong = (~same_L & given_LX.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if wrong:
        off = float(off_L[wrong[0]])
        raise ValueError(
            f"the attention of {type(model).__name__} cannot be rebuilt from its queries and keys: "
            f"in layer {wrong[0]} it comes out {off:.0%} off; {WITHOUT_ATTENTION}"
        )
