"""Random: keep randomly drawn candidates, the same ones each time.

Shapes: B batch, L layers, H key/value heads, T positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kava.eviction.base import Candidates, ScoredEviction, register_eviction
from kava.trace import KVTrace, Scope

# Steele, Lea & Flood, "Fast splittable pseudorandom number generators" (2014): splitmix64, its
# unsigned constants written as the signed integers that wrap to them.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def mix(keys: Tensor) -> Tensor:
    """Scatter int64 keys over all int64 (splitmix64), equal on every device."""
    keys = (keys ^ ((keys >> 30) & (2**34 - 1))) * FIRST
    keys = (keys ^ ((keys >> 27) & (2**37 - 1))) * SECOND
    return keys ^ ((keys >> 31) & (2**33 - 1))


@register_eviction("random")
@dataclass(frozen=True, kw_only=True)
class RandomEviction(ScoredEviction):
    """Keep `target_len` random candidates: the control that every method must beat.

    Each candidate's random number is a hash of the seed, the sample's name, layer, head, and the
    candidate's rank among the sample's candidates. There is no generator state, so a sample draws
    the same positions in every batch, at every call and on every device.

    Args:
        seed: another seed draws other positions.
        sample_ids: B names of the samples, such as a batch's "ids". Without them a sample is
            named by its lengths and by a coarse fingerprint of its values in the first layer.
            It differs between samples, and rounding, which depends slightly on the shape of a
            batch, hardly ever changes it; a given name never changes.
        scope: default "model", one draw for all layers and heads.

    Raises:
        ValueError: the number of `sample_ids` is not the batch size.

    Example:
        >>> kept, indices_BLHM = compress(
        ...     trace, "random", target_len=8, seed=1, sample_ids=batch["ids"]
        ... )
    """

    seed: int = 0
    sample_ids: Sequence[str | int] | None = None
    scope: Scope = "model"

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """A random number in [0, 1) for every position, per layer and head as `scope` says."""
        device = trace.keys.device
        named = self.sample_ids is not None
        names_B = self._names(trace) if named else fingerprint(trace, candidates)
        layers = trace.num_layers if self.scope != "model" else 1
        heads = trace.num_heads if self.scope == "head" else 1
        heads_LH1 = torch.arange(layers * heads, device=device).view(layers, heads, 1)
        ranks_BT = candidates.mask.cumsum(dim=1)
        seed_B = mix(torch.full_like(names_B, self.seed) + GOLDEN)
        keys_B111 = mix(names_B + seed_B)[:, None, None, None]
        draws_BLHT = mix(mix(keys_B111 + heads_LH1) + ranks_BT[:, None, None] * GOLDEN)
        return ((draws_BLHT >> 40) & (2**24 - 1)).float() / 2**24

    def _names(self, trace: KVTrace) -> Tensor:
        assert self.sample_ids is not None
        if len(self.sample_ids) != trace.batch_size:
            raise ValueError(
                f"sample_ids names {len(self.sample_ids)} samples, the batch has "
                f"{trace.batch_size}; pass one name per sample"
            )
        digests = [hashlib.blake2b(str(name).encode(), digest_size=8) for name in self.sample_ids]
        names = [int.from_bytes(digest.digest(), "big", signed=True) for digest in digests]
        return torch.tensor(names, device=trace.keys.device)


def fingerprint(trace: KVTrace, candidates: Candidates) -> Tensor:
    """[B] int64 that identifies a sample by its lengths and its first layer's values.

    The values of the candidates are added with random signs, scaled to unit variance, and four
    coordinates of the sum are cut into steps of a quarter: coarse against rounding, fine enough
    for thousands of names.
    """
    ranks_BT = candidates.mask.cumsum(dim=1)
    signs_BT = torch.where(mix(ranks_BT * GOLDEN) < 0, -1.0, 1.0)
    values_BTD = trace.values[:, 0, 0].float().masked_fill(~candidates.mask[..., None], 0.0)
    sums_BD = torch.bmm(signs_BT[:, None], values_BTD)[:, 0]
    scaled_BD = sums_BD / sums_BD.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-30)
    steps_BN = (scaled_BD[:, :4] * 4).floor().nan_to_num(0.0).long()
    lengths_B2 = torch.stack([candidates.counts, trace.valid_BT().sum(dim=1)], dim=1)
    name_B = torch.zeros_like(candidates.counts)
    for part_B in torch.cat([lengths_B2, steps_BN], dim=1).unbind(dim=1):
        name_B = mix(name_B + part_B + GOLDEN)
    return name_B
