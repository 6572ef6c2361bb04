"""Keys and values of an encoder's self-attention: BERT and T5 families have no cache to read.

Hooks on the projections of keys and values take them in a forward, layer by layer. An encoder reads
a text both ways. So that what it leaves behind at the reasoning does not know the answer, which a
decoder has not read there, the answer's tokens are hidden from its attention.

Shapes: B batch, L layers, H heads, T positions, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from kava.models.limits import check_readable
from kava.trace import KVTrace, Segment

_BERT = (".attention.self.key", ".attention.self.value")
_DISTILBERT = (".attention.k_lin", ".attention.v_lin")
_T5 = (".SelfAttention.k", ".SelfAttention.v")

PROJECTIONS: dict[str, tuple[str, str]] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _DISTILBERT,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
}
"""Model type → how the names of the modules end that project keys and values."""

AFTER_PADDING = ("roberta", "xlm-roberta")
"""Families whose positions count from behind the padding token's id."""
COMPUTED_POSITIONS = ("t5", "mt5", "umt5")
"""Families whose positions are distances, so that padding on the left moves nothing."""


@dataclass
class EncoderOutput(ModelOutput):
    """What the forward of an encoder gives, in the names of a causal model's outputs.

    Attributes:
        logits: None: an encoder predicts no next token.
        hidden_states: L + 1 of [B, T, width]; None unless requested.
        past_key_values: None: an encoder keeps no cache.
    """

    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    past_key_values: Any = None


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether a configuration is that of an encoder whose keys and values can be taken.

    T5's is also that of its encoder, without the decoder.

    Example:
        >>> is_encoder(BertConfig()), is_encoder(LlamaConfig())
        (True, False)
    """
    if config.model_type not in PROJECTIONS:
        return False
    return not config.to_dict().get("is_decoder", False)


def capture_encoder(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    hidden_states: bool = False,
) -> tuple[EncoderOutput, KVTrace]:
    """Run one forward of an encoder and return its outputs with the key/value trace.

    Args:
        model: an encoder of a family in `PROJECTIONS`.
        input_ids: [B, T].
        attention_mask: [B, T], nonzero at valid positions, padding on either side.
        segment_ids: [B, T]; with them the answer is hidden from every position.
        hidden_states: return all hidden states.

    Raises:
        ValueError: a text that is longer than the model's table of positions, or keys and values
            that do not come out of the hooks as expected.

    Example:
        >>> _, trace = capture_encoder(AutoModel.from_pretrained("bert-base-uncased"), ids, mask)
        >>> trace.keys.shape  # [B, L, H, T, D]
    """
    valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    read = valid
    if segment_ids is not None:
        read = valid * segment_ids.ne(Segment.ANSWER)
    positions = (valid.cumsum(-1) - 1).clamp(min=0)
    arguments: dict[str, Any] = {}
    family = model.config.model_type
    if family not in COMPUTED_POSITIONS:
        first = model.config.pad_token_id + 1 if family in AFTER_PADDING else 0
        arguments["position_ids"] = positions + first
        check_readable(model, input_ids, int(arguments["position_ids"].max()))
    with _taken(model) as taken:
        outputs = model(
            input_ids=input_ids,
            attention_mask=read,
            output_hidden_states=hidden_states,
            return_dict=True,
            **arguments,
        )
    if not taken.keys or len(taken.keys) != len(taken.values):
        raise ValueError(
            f"{type(model).__name__} ({family}) ran {len(taken.keys)} projections of keys and "
            f"{len(taken.values)} of values, as no encoder of its family should"
        )
    H = model.config.num_attention_heads

    def stacked(parts: list[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(-1, (H, -1)).transpose(1, 2) for part in parts], dim=1)

    trace = KVTrace(
        stacked(taken.keys),
        stacked(taken.values),
        mask=None if attention_mask is None else attention_mask.bool(),
        segment_ids=segment_ids,
        positions=positions,
    )
    return EncoderOutput(hidden_states=outputs.hidden_states), trace


@dataclass
class _Taken:
    """Outputs of the projections, layer by layer."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@contextmanager
def _taken(model: PreTrainedModel) -> Iterator[_Taken]:
    """Take what the projections of keys and values give inside the block."""
    taken = _Taken()
    endings = PROJECTIONS[model.config.model_type]
    handles = []
    for into, ending in zip((taken.keys, taken.values), endings):

        def take(module: nn.Module, given: Any, made: Tensor, into: list[Tensor] = into) -> None:
            into.append(made)

        handles += [
            module.register_forward_hook(take)
            for name, module in model.named_modules()
            if f".{name}".endswith(ending)
        ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()
