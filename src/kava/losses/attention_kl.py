"""KL divergence between the attention of two models, row by row, each in its own form.

Shapes: B batch, L layers, H key/value heads, G query heads per key/value head, Hq = H·G,
T positions, R query rows of one chunk, D head dim, N = B·L·H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from torch.utils.checkpoint import checkpoint

from kava.attention import AttentionForm, HeadForm, attention_logits
from kava.losses.positions import zero_padding

# Rows of the attention matrix in memory at once; up to this many positions need one chunk.
CHUNK_ROWS = 128


class AttentionSide(NamedTuple):
    """The inputs of one model's attention."""

    queries: Tensor
    """[B, L, Hq, T, D]."""
    keys: Tensor
    """[B, L, H, T, D]."""
    form: AttentionForm | None = None
    """None: the other side's form; if both are None, scaling by 1/√D alone."""
    positions: Tensor | None = None
    """[B, T] or [B, L, H, T], the positions for windows and chunks; None: column numbers."""


def attention_kl(student: AttentionSide, target: AttentionSide, mask_BT: Tensor | None) -> Tensor:
    """KL(target ‖ student) of causal attention, per query row, averaged over heads.

    A position that either side keeps from a query, by a window or a chunk, is left out of both:
    a weight of zero has no finite divergence from another. A sink counts as one more position
    where both sides have one.

    Args:
        student: carries the gradient.
        target: of the same shapes.
        mask_BT: [B, T] bool, or None where all positions are valid.

    Returns:
        [B, L, T] in float32; rows at padded positions are finite and mean nothing.
    """
    B, L, H, T, _ = student.keys.shape
    device = student.keys.device
    ours, theirs = (form.of_heads(B, H, device) for form in _forms(student, target))
    parts = []
    for side in (student, target):
        queries_BLQTD, keys_BLHTD = (zero_padding(x, mask_BT) for x in side[:2])
        parts += [queries_BLQTD.unflatten(2, (H, -1)).flatten(0, 2), keys_BLHTD.flatten(0, 2)]
    s_q, s_k, t_q, t_k = parts
    places = [_positions(student, ours), _positions(target, theirs)]
    valid_NT = None if mask_BT is None else mask_BT.repeat_interleave(L * H, dim=0)
    rows: list[Tensor] = []
    with torch.autocast(device.type, enabled=False):
        for start in range(0, T, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, T)
            hidden = _hidden(start, stop, valid_NT, [ours, theirs], places, device)
            chunk = (s_q[:, :, start:stop], s_k[:, :stop], t_q[:, :, start:stop], t_k[:, :stop])
            if T <= CHUNK_ROWS:
                rows.append(_kl_of_rows(*chunk, ours, theirs, *hidden))
            else:
                rows.append(
                    checkpoint(
                        _kl_of_rows,
                        *chunk,
                        ours,
                        theirs,
                        *hidden,
                        use_reentrant=False,
                        preserve_rng_state=False,
                    )
                )
    return torch.cat(rows, dim=1).view(B, L, H, T).mean(dim=2)


def _forms(student: AttentionSide, target: AttentionSide) -> tuple[AttentionForm, AttentionForm]:
    _, L, _, _, D = student.keys.shape
    ours = student.form or target.form or AttentionForm.usual(L, D)
    return ours, target.form or ours


def _positions(side: AttentionSide, form: HeadForm) -> Tensor | None:
    """[N, T], where the form asks for them."""
    if not form.has_reach:
        return None
    B, L, H, T, _ = side.keys.shape
    positions = side.positions
    if positions is None:
        positions = torch.arange(T, device=side.keys.device).expand(B, T)
    if positions.ndim == 2:
        return positions.repeat_interleave(L * H, dim=0)
    return positions.expand(B, L, H, T).flatten(0, 2)


def _hidden(
    start: int,
    stop: int,
    valid_NT: Tensor | None,
    forms: list[HeadForm],
    places: list[Tensor | None],
    device: torch.device,
) -> list[Tensor]:
    """Masks, bool, of what the rows start:stop do not see of the columns up to them."""
    hidden = [torch.ones(stop - start, stop, dtype=torch.bool, device=device).triu(start + 1)]
    if valid_NT is not None:
        hidden.append(~valid_NT[:, None, None, :stop])
    for form, place in zip(forms, places):
        if place is not None:
            hidden.append(form.out_of_reach(place[:, start:stop], place[:, :stop])[:, None])
    return hidden


def _kl_of_rows(
    s_q: Tensor,
    s_k: Tensor,
    t_q: Tensor,
    t_k: Tensor,
    ours: HeadForm,
    theirs: HeadForm,
    *hidden: Tensor,
) -> Tensor:
    """[N, R]: the divergence of some rows, averaged over the query heads of a group."""
    student = attention_logits(s_q, s_k, ours, *hidden)
    target = attention_logits(t_q, t_k, theirs, *hidden)
    if (ours.sinks is None) != (theirs.sinks is None):
        student, target = (x[..., : s_k.shape[1]] for x in (student, target))
    student, target = student.log_softmax(dim=-1), target.log_softmax(dim=-1)
    kl_NGRT = kl_div(student, target, reduction="none", log_target=True)
    return kl_NGRT.sum(dim=-1).mean(dim=1)
