"""The shape of a model's cache, given or read off its config."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class ModelConfig(Protocol):
    """What is read off a Hugging Face config; its `attribute_map` translates the names."""

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
        """Read a model's geometry off its config.

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
