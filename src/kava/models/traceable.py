"""Check that a model has a trace: it is causal, with keys and values in every layer.

Configuration and class are checked before weights are read (`check_kind`); properties that only a
forward shows are tested on a few tokens (`kava.models.probe`).
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from kava.models.encoders import is_encoder

WITHOUT_KEYS = frozenset({"linear_attention", "mamba", "recurrent", "conv", "moe"})
"""Layer types in configs that write no keys and values into a cache."""


def check_traceable(model: PreTrainedModel) -> None:
    """Refuse a model without a trace before anything is computed with it.

    An encoder of the BERT or T5 family has one, though no cache.

    Raises:
        ValueError: an encoder-decoder, or a model with a layer that stores no keys and values
            (recurrent, linear attention, convolution, only experts).

    Example:
        >>> check_traceable(teacher)
    """
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder; a trace needs a causal (decoder-only) "
            f"language model, or the encoder alone"
        )
    if is_encoder(model.config):
        return
    _check_layers(type(model), model.config.get_text_config())


def name_outputs(config: PreTrainedConfig) -> None:
    """Make a model return its outputs by name, and only the requested ones.

    The configuration may hold other output options that were saved with the model.
    """
    config.return_dict = True
    config.output_hidden_states = False
    config.output_attentions = False


def check_kind(config: PreTrainedConfig, source: str) -> None:
    """Refuse a model that is not a causal language model with a trace, from its configuration.

    Args:
        config: configuration of the model, or of the text part of a composite one.
        source: name of the model in messages.

    Raises:
        ValueError: an encoder, an encoder-decoder, a model of images or sound, or one whose layers
            store no keys and values.

    Example:
        >>> check_kind(AutoConfig.from_pretrained("gpt2"), "gpt2")
    """
    if config.is_encoder_decoder:
        raise ValueError(
            f"{source!r} is an encoder-decoder ({config.model_type}); pass a causal "
            f"(decoder-only) language model"
        )
    kind = type(config)
    # encoders such as BERT also have a causal class, but are causal only with is_decoder
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING and not config.to_dict().get(
        "is_decoder", True
    )
    if is_encoder or kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"{source!r} is no causal language model ({config.model_type}); pass a decoder-only one"
        )
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    try:
        _check_layers(causal, config)
    except ValueError as error:
        raise ValueError(f"{source!r} cannot be used: {error}") from error


def text_part(config: PreTrainedConfig, source: str) -> PreTrainedConfig:
    """The configuration of a model's text decoder: its own, or a part of a composite one.

    Raises:
        ValueError: a composite model whose text part has no class of its own.

    Example:
        >>> text_part(Gemma3Config(), "google/gemma-3-4b-it").model_type
        'gemma3_text'
    """
    if config.is_encoder_decoder:
        return config
    try:
        text = config.get_text_config(decoder=True)
    except ValueError as error:  # several
        raise _composite(config, source, "which of its parts is meant is not plain") from error
    if text is config:
        return config
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kin = _kin(text.model_type)
        raise _composite(
            config,
            source,
            f"its text part ({text.model_type}) is no model of its own",
            "" if kin is None else f", such as a {kin} in place of {text.model_type}",
        )
    # the whole model's configuration decides whether the head is tied
    tied = config.to_dict().get("tie_word_embeddings", text.tie_word_embeddings)
    text.tie_word_embeddings = tied
    return text


def _composite(config: PreTrainedConfig, source: str, reason: str, example: str = "") -> ValueError:
    return ValueError(
        f"{source!r} is a composite model ({config.model_type}), and {reason}; pass a causal "
        f"language model of text{example}"
    )


def _kin(model_type: str) -> str | None:
    """The kind of language model that a text part is named after: qwen3 for qwen3_vl_text."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return max((k for k in known if model_type.startswith(k)), key=len, default=None)


def _check_layers(kind: type[PreTrainedModel], config: Any) -> None:
    name = kind.__name__
    if kind._is_stateful:
        raise ValueError(
            f"{name} has recurrent layers, which keep a state and no keys and values; a trace "
            f"needs attention in every layer"
        )
    for layer, layer_type in enumerate(getattr(config, "layer_types", None) or ()):
        if layer_type in WITHOUT_KEYS:
            raise ValueError(
                f"layer {layer} of {name} is of the type {layer_type}, which keeps no keys and "
                f"values; a trace needs attention in every layer"
            )
    if "past_key_values" not in inspect.signature(kind.forward).parameters:
        raise ValueError(
            f"{name} keeps no cache of keys and values; a trace needs one, as all newer decoders "
            f"have it"
        )


def decoder_of(model: PreTrainedModel) -> Any:
    """A causal language model without its output head."""
    if model.base_model is not model:
        return model.base_model
    # Llama 4 names its base after a part that the text-only model does not have
    return model.model
