"""Hide cached positions from a model's queries, and change nothing else.

A hole in the attention mask hides a position too, but some families read more off the mask than
what is padding: BLOOM and Falcon count the distances of ALiBi by it, so that a hole brings all
that stands before it one nearer. Here the mask that a model is given stays whole. The position is
taken out where transformers turns that mask into one of queries and keys.

Shapes: B batch, S cached and new columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS


class Hidden:
    """What is hidden at the moment.

    Attributes:
        shown: [B, S] bool, False at the columns that no query of the next forward may look at;
            None hides nothing.
    """

    def __init__(self) -> None:
        self.shown: Tensor | None = None


@contextmanager
def hiding(model: PreTrainedModel) -> Iterator[Hidden]:
    """Let the forwards of `model` inside the block hide columns, as the value it yields says.

    Args:
        model: a causal Hugging Face model.

    Example:
        >>> with hiding(teacher) as hidden:
        ...     hidden.shown = mask_BS.bool() & (columns_S != 3)
        ...     logits = teacher(input_ids, attention_mask=mask_BS, past_key_values=cache).logits
    """
    hidden = Hidden()
    inner = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    own = {id(config) for config in inner}
    saved: dict[str, Any] = {}

    def hide(make: Callable[..., Any]) -> Callable[..., Any]:
        def make_mask(*args: Any, **options: Any) -> Any:
            if hidden.shown is not None and id(options["config"]) in own:
                mask = options["attention_mask"]
                options["attention_mask"] = hidden.shown if mask is None else mask & hidden.shown
            return make(*args, **options)

        return make_mask

    masks = ALL_MASK_ATTENTION_FUNCTIONS
    for name in {config._attn_implementation for config in inner}:
        if name in masks:
            saved[name] = masks[name]
            masks[name] = hide(saved[name])
    try:
        yield hidden
    finally:
        for name, make in saved.items():
            del masks[name]
            if masks[name] is not make:  # it stood over the library's own before
                masks[name] = make
