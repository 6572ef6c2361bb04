"""Key/value caches for passes that continue an earlier one.

The growing cache of transformers cannot do two things: continue from existing tensors without
copying them (training, with gradients), and decode into memory that is allocated once (inference).

Shapes: B batch, L layers, H key/value heads, S cached positions, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from kava.models.recompute import cache_layer
from kava.trace import iter_past

Pairs = Sequence[tuple[Tensor, Tensor]]  # per layer: keys and values, each [B, H, S, D]


def cache_from(pairs: Pairs) -> DynamicCache:
    """A growing cache that starts from existing tensors, without copying them.

    `DynamicCache(pairs)` first concatenates every tensor to an empty one; here the tensors are used
    directly, with their gradients. Updates concatenate, so the originals are unchanged and several
    caches can start from the same pairs.
    """
    cache = DynamicCache()
    cache.layers.extend(cache_layer((keys, values)) for keys, values in pairs)
    return cache


def pairs_of(cache: Cache, stop: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Each layer's keys and values over the first `stop` positions, as views."""
    return [(keys[:, :, :stop], values[:, :, :stop]) for keys, values in iter_past(cache)]


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values in a buffer of fixed size, filled from the left.

    Updates write in place and return views, so it serves inference only: under autograd the
    in-place write would invalidate what earlier passes saved.
    """

    def __init__(self, max_length: int):
        super().__init__()
        self.max_length = max_length
        self.length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append [B, H, T, D] keys and values; return all cached ones."""
        stop = self.length + key_states.shape[2]
        if stop > self.max_length:
            raise ValueError(f"{stop} positions do not fit a cache of {self.max_length}")
        if not self.is_initialized:
            B, H, _, D = key_states.shape
            self.keys = key_states.new_empty(B, H, self.max_length, D)
            self.values = value_states.new_empty(B, H, self.max_length, value_states.shape[-1])
            self.is_initialized = True
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, self.length : stop] = key_states
        self.values[:, :, self.length : stop] = value_states
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def get_seq_length(self) -> int:
        """The number of positions written so far."""
        return self.length


class PreallocatedCache(Cache):
    """A cache whose memory is allocated once, at its final size, and can be rewound.

    Args:
        num_layers: L.
        max_length: number of positions that it can hold.
    """

    def __init__(self, num_layers: int, max_length: int):
        super().__init__(layers=[PreallocatedLayer(max_length) for _ in range(num_layers)])

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""
        for layer in self.layers:
            assert isinstance(layer, PreallocatedLayer)
            layer.length = min(layer.length, length)
