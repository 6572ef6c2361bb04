"""Which models have a trace: causal ones with attention, and so keys and values, in every layer."""

from __future__ import annotations

from transformers import PreTrainedModel

WITHOUT_KEYS = frozenset({"linear_attention", "mamba", "recurrent", "conv", "moe"})
"""Layer types, as configs name them, that write no keys and values into a cache."""


def check_traceable(model: PreTrainedModel) -> None:
    """Refuse a model that has no trace, before anything is computed with it.

    Raises:
        ValueError: an encoder-decoder, or a model with a layer that keeps no keys and values
            (recurrent, linear attention, convolution, experts alone).

    Example:
        >>> check_traceable(teacher)
    """
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder; a trace needs a causal (decoder-only) language model"
        )
    if model._is_stateful:
        raise ValueError(
            f"{name} has recurrent layers, which keep a state and no keys and values; a trace "
            f"needs attention in every layer"
        )
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    for layer, kind in enumerate(kinds):
        if kind in WITHOUT_KEYS:
            raise ValueError(
                f"layer {layer} of {name} is of the type {kind}, which keeps no keys and values; "
                f"a trace needs attention in every layer"
            )
