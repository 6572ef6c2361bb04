"""The shape of a model's cache, and the heads and head dims between which a map goes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class ModelConfig(Protocol):
    """The attributes that are read from a Hugging Face config, under its standard names."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int


class CacheGeometry(NamedTuple):
    """The shape of a model's cache."""

    num_layers: int
    num_heads: int
    num_query_heads: int
    head_dim: int

    @classmethod
    def from_config(cls, config: ModelConfig) -> CacheGeometry:
        """Read a model's geometry from its config.

        `num_key_value_heads` and `head_dim` are optional in Hugging Face configs: without them a
        model has as many key/value as query heads, and splits its hidden size among them.

        Raises:
            ValueError: a config without layers and heads: a composite or a recurrent one.
        """
        try:
            num_layers, num_query_heads = config.num_hidden_layers, config.num_attention_heads
        except AttributeError as error:
            raise ValueError(
                f"{type(config).__name__} describes no decoder with attention ({error}): a "
                f"recurrent model keeps no keys and values; of a composite config pass the "
                f"text_config, or give the numbers to MapProjectionAligner"
            ) from None
        optional = {
            name: value
            for name in ("num_key_value_heads", "head_dim")
            if (value := getattr(config, name, None)) is not None
        }
        return cls(
            num_layers,
            optional.get("num_key_value_heads", num_query_heads),
            num_query_heads,
            optional["head_dim"]
            if "head_dim" in optional
            else config.hidden_size // num_query_heads,
        )

    def check(self, side: str, keys: Tensor, values: Tensor, queries: Tensor | None) -> None:
        """Refuse keys, values or queries that are not of this geometry.

        Args:
            side: "teacher" or "student", for the message.
            keys: [B, L, H, T, D] is expected.
            values: [B, L, H, T, D] is expected.
            queries: [B, L, Hq, T, D] is expected, or None.

        Raises:
            ValueError: another shape, or a batch or length that differs from that of the keys.
        """
        layers, dim = self.num_layers, self.head_dim
        for name, x in (("keys", keys), ("values", values), ("queries", queries)):
            if x is None:
                continue
            heads = self.num_query_heads if name == "queries" else self.num_heads
            if x.ndim != 5 or (x.shape[1], x.shape[2], x.shape[4]) != (layers, heads, dim):
                raise ValueError(
                    f"{name} have shape {list(x.shape)}, but this aligner's {side} needs "
                    f"[B, {layers}, {heads}, T, {dim}] (batch, layers, heads, positions, head dim)"
                )
            if (x.shape[0], x.shape[3]) != (keys.shape[0], keys.shape[3]):
                raise ValueError(
                    f"{name} have shape {list(x.shape)}, which does not fit the batch and "
                    f"positions of keys {list(keys.shape)}"
                )


class HeadDims(NamedTuple):
    """The heads and head dims between which a map goes."""

    num_heads_in: int
    num_heads_out: int
    head_dim_in: int
    head_dim_out: int

    @property
    def dim_in(self) -> int:
        """C_in."""
        return self.num_heads_in * self.head_dim_in

    @property
    def dim_out(self) -> int:
        """C_out."""
        return self.num_heads_out * self.head_dim_out

    def full_rank(self, per_head: bool) -> int:
        """The smallest number of terms with which every map can be written."""
        num_mixes = self.num_heads_in * (1 if per_head else self.num_heads_out)
        return min(num_mixes, self.head_dim_in * self.head_dim_out)

    def check_rank(self, rank: int, per_head: bool) -> None:
        """Refuse a number of terms that is none, or more than every map needs.

        Raises:
            ValueError: says how many there can be.
        """
        full = self.full_rank(per_head)
        if not 1 <= rank <= full:
            raise ValueError(
                f"rank={rank} is out of reach: between {self.num_heads_in} heads of "
                f"{self.head_dim_in} and {self.num_heads_out} heads of {self.head_dim_out} a sum "
                f"of {full} terms is every map; choose 1 to {full}"
            )

    def num_parameters(self, rank: int | None, per_head: bool) -> int:
        """Parameters of one layer's map, with its bias; rank None is the full matrix."""
        if rank is None:
            return self.dim_out * (self.dim_in + 1)
        mix = self.num_heads_in * self.num_heads_out
        dims = self.head_dim_in * self.head_dim_out * (self.num_heads_out if per_head else 1)
        return rank * (mix + dims) + self.dim_out
