"""The encoder of a cache: keys and values of all layers and heads at a slot become one point.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim; F = 2·L·H·D features,
Z dims of the space.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from kava.trace import KVTrace


def features_of(trace: KVTrace) -> Tensor:
    """[B, M, F]: keys, then values, layer by layer; 0 at slots that the mask leaves out."""
    parts = torch.stack([trace.keys, trace.values], dim=1)
    features = rearrange(parts, "b p l h m d -> b m (p l h d)")
    if trace.mask is None:
        return features
    return features.masked_fill(~trace.mask.bool()[..., None], 0.0)


class TraceEncoder(nn.Module):
    """Map a trace to the shared space: [B, L, H, M, D] twice → [B, M, Z].

    The features are standardised by statistics of the traces that the space is fitted to: a mean
    for each, and a standard deviation for keys and for values of each layer. One hidden layer of
    2·Z with a GELU follows, as in the projectors of Deep CCA and Barlow Twins, which are larger.

    Args:
        num_layers: L.
        num_heads: H.
        head_dim: D.
        dim: Z.

    Example:
        >>> encoder = TraceEncoder(2, 4, 16, dim=8)
        >>> keys = torch.randn(3, 2, 4, 5, 16)
        >>> encoder(KVTrace(keys, keys)).shape
        torch.Size([3, 5, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_layers: int, num_heads: int, head_dim: int, dim: int):
        super().__init__()
        self.geometry = num_layers, num_heads, head_dim
        width = 2 * num_layers * num_heads * head_dim
        self.hidden = nn.Linear(width, 2 * dim)
        self.out = nn.Linear(2 * dim, dim)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, trace: KVTrace) -> Tensor:
        """The points of a trace's slots.

        Raises:
            ValueError: a trace of another geometry.
        """
        found = trace.num_layers, trace.num_heads, trace.head_dim
        if found != self.geometry:
            raise ValueError(
                f"a trace of {found[0]} layers, {found[1]} heads and head dim {found[2]} does not "
                f"fit an encoder of {self.geometry[0]}, {self.geometry[1]} and {self.geometry[2]}"
            )
        return self.encode(features_of(trace))

    def encode(self, features: Tensor) -> Tensor:
        """The points [.., Z] of features [.., F]."""
        plain = (features - self.mean) / self.std
        points: Tensor = self.out(nn.functional.gelu(self.hidden(plain)))
        return points

    @torch.no_grad()
    def standardise(self, features_NF: Tensor) -> None:
        """Take mean and standard deviation from the features of N slots."""
        num_layers, num_heads, head_dim = self.geometry
        self.mean.copy_(features_NF.mean(0))
        blocks = rearrange(
            features_NF - self.mean, "n (b c) -> b n c", c=num_heads * head_dim, b=2 * num_layers
        )
        # a block that never varies keeps a scale of 1
        std_B = blocks.square().mean((1, 2)).sqrt()
        std_B = torch.where(std_B > 1e-6, std_B, 1.0)
        self.std.copy_(std_B.repeat_interleave(num_heads * head_dim))
