"""Hugging Face models: loading, their limits, and the trace of a forward pass."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.models.load import load_model, load_model_config, load_tokenizer
    from kava.models.rotary import rotary_of

__all__ = ["load_model", "load_model_config", "load_tokenizer", "rotary_of"]

__getattr__ = lazy_names(
    __name__,
    {
        "load_model": "kava.models.load",
        "load_model_config": "kava.models.load",
        "load_tokenizer": "kava.models.load",
        "rotary_of": "kava.models.rotary",
    },
)
