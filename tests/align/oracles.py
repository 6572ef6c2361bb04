"""Slow loops written from the formulas, one number or one vector at a time."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def loop_contract(x: Tensor, weights_ST: Tensor, head: Tensor, dim: Tensor) -> Tensor:
    """y[b, i, h, t] = P_h · Σ_l W[i, l] Σ_g M[h, g] x[b, l, g, t]."""
    B, L_t, H_t, T, _ = x.shape
    y = x.new_zeros(B, len(weights_ST), len(head), T, dim.shape[-2])
    for b, i, h, t in itertools.product(
        range(B), range(len(weights_ST)), range(len(head)), range(T)
    ):
        mixed = sum(
            float(weights_ST[i, m]) * head[h, g] * x[b, m, g, t]
            for m in range(L_t)
            for g in range(H_t)
        )
        y[b, i, h, t] = (dim if dim.ndim == 2 else dim[h]) @ mixed
    return y


def loop_share_out(shares: list[float], total: int) -> list[int]:
    """Largest remainder; then one slot, from the largest, for each positive share without one."""
    quotas = [total * share / sum(shares) for share in shares]
    slots = [math.floor(quota) for quota in quotas]
    by_rest = sorted(
        (s for s in range(len(shares)) if shares[s] > 0),
        key=lambda s: (-(quotas[s] - slots[s]), s),
    )
    for s in by_rest[: total - sum(slots)]:
        slots[s] += 1
    if sum(share > 0 for share in shares) <= total:
        for s, share in enumerate(shares):
            if share > 0 and slots[s] == 0:
                slots[slots.index(max(slots))] -= 1
                slots[s] = 1
    return slots


def loop_warp(
    x_THD: Tensor,
    segments: list[int],
    target_length: int,
    ratios: list[float],
    alphas: list[float],
) -> Tensor:
    """One sample, [T, ...] -> [T_s, ...]; segment −1 is padding."""
    members = [
        [t for t, s in enumerate(segments) if s == segment] for segment in range(len(ratios))
    ]
    slots = loop_share_out([len(m) * r for m, r in zip(members, ratios)], target_length)
    rows = []
    for member, count, alpha in zip(members, slots, alphas):
        for slot in range(count):
            at = slot * (len(member) - 1) / (count - 1) if count > 1 else len(member) - 1
            low = min(math.floor(at + 1e-9), len(member) - 1)
            high = min(low + 1, len(member) - 1)
            linear = (at - low) * x_THD[member[high]] + (1 - at + low) * x_THD[member[low]]
            nearest = x_THD[member[min(math.floor(at + 0.5 + 1e-9), len(member) - 1)]]
            rows.append(alpha * linear + (1 - alpha) * nearest)
    return torch.stack(rows)


def loop_layerwise(
    x: Tensor, weights_ST: Tensor, head: Tensor, dim: Tensor, bias: Tensor
) -> Tensor:
    """y[b, i, h, t] = b[i, h] + Σ_r P[i, r(, h)] · Σ_l W[i, l] Σ_g M[i, r, h, g] x[b, l, g, t]."""
    layers = []
    for i, row in enumerate(weights_ST):
        terms = [loop_contract(x, row[None], M, P) for M, P in zip(head[i], dim[i])]
        layers.append(sum(terms[1:], terms[0]) + bias[i][:, None])
    return torch.cat(layers, dim=1)
