"""Record the queries of a model's forwards, and the form of its attention.

A cache stores keys and values, but not queries. Inside a `with` block, a wrapper around the
attention function receives them after norms and rotation, with the family's parameters (scaling,
soft cap, window, sinks), and then calls the original function. GPT-J, GPT-Neo and CodeGen do not
use transformers' attention interface: their `_attn` methods are wrapped instead.

Shapes: B batch, L layers, Hq query heads, T positions, D head dim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)

from kava.attention import AttentionForm, LayerForm

_RECORDING = "kava_recording_"
_RECORDERS: WeakKeyDictionary[nn.Module, QueryRecorder] = WeakKeyDictionary()

WITHOUT_ATTENTION = (
    "choose what does not look at attention: an eviction such as knockout, key_norm or uniform, "
    "and a KV loss other than structural"
)

OLDER_FAMILIES: dict[str, Callable[[Any, float], LayerForm]] = {
    "gptj": lambda module, usual: LayerForm(usual),
    "codegen": lambda module, usual: LayerForm(usual),
    "gpt_neo": lambda module, usual: LayerForm(
        1.0, window=module.config.window_size if module.attention_type == "local" else None
    ),
}
"""Model type → (the module of the `_attn` method, 1/√D) → its layer's form."""


class QueryRecorder:
    """The post-rotary queries of every forward made inside `record_queries`.

    Attributes:
        forwards: one list per forward, in order, of one [B, Hq, T, D] tensor per layer. A new
            list starts when a layer is seen again.
        watched: (sample, row) whose attention outputs are kept, or None.
        outputs: attention outputs of the watched row in every layer of the latest forward, [Hq, D]
            each.
    """

    def __init__(self) -> None:
        self.forwards: list[list[Tensor]] = []
        self.watched: tuple[int, int] | None = None
        self.outputs: list[Tensor] = []
        self._forms: list[LayerForm] = []
        self._seen: set[int] = set()

    def add(self, layer: nn.Module, query_BHTD: Tensor, form: LayerForm, out_BTHD: Tensor) -> None:
        """Append the call of `layer` to the current forward."""
        if not self.forwards or id(layer) in self._seen:
            self.forwards.append([])
            for part in (self._forms, self.outputs, self._seen):
                part.clear()
        self._seen.add(id(layer))
        self.forwards[-1].append(query_BHTD)
        self._forms.append(form)
        if self.watched is not None:
            self.outputs.append(out_BTHD[self.watched].detach())

    def stacked(self, forward: int = -1) -> Tensor:
        """The queries of one forward, by default the latest, as [B, L, Hq, T, D].

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.forwards:
            raise ValueError(
                "no queries were recorded: run the model inside the `record_queries` block, "
                "without a fused attention that bypasses transformers' AttentionInterface"
            )
        shapes = {tuple(part.shape) for part in self.forwards[forward]}
        if len(shapes) > 1:
            raise ValueError(
                f"layers have queries of different shapes ({sorted(shapes)}), which no trace "
                f"holds; {WITHOUT_ATTENTION}"
            )
        return torch.stack(self.forwards[forward], dim=1)

    def attention(self) -> AttentionForm:
        """The form of attention of the layers in the latest forward."""
        return AttentionForm.of_layers(self._forms)

    def clear(self) -> None:
        """Delete all forwards, and with them the autograd graphs of their queries."""
        for part in (self.forwards, self._forms, self.outputs, self._seen):
            part.clear()


def _form_of_call(module: Any, query: Tensor, options: dict[str, Any]) -> LayerForm:
    """The form of attention given by the arguments of transformers' attention interface."""
    scaling = options.get("scaling")
    config = module.config
    chunk = None
    kinds = config.to_dict().get("layer_types")
    if kinds and kinds[module.layer_idx] == "chunked_attention":
        chunk = config.attention_chunk_size
    return LayerForm(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        softcap=options.get("softcap"),
        window=options.get("sliding_window"),
        chunk=chunk,
        sinks=options.get("s_aux"),
    )


def _delegate(module: nn.Module, implementation: str) -> Callable[..., Any]:
    """The attention function that `module` would have called under `implementation`.

    Eager attention is a function of each modeling file, and a modeling file may override the
    shared table, so both are looked up in the file that defines the module's class.
    """
    for cls in type(module).__mro__:
        scope = vars(sys.modules[cls.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in scope and "eager_attention_forward" in scope:
            return scope["ALL_ATTENTION_FUNCTIONS"].get_interface(
                implementation, scope["eager_attention_forward"]
            )
    raise ValueError(
        f"the queries of {type(module).__name__} cannot be recorded: its modeling file does not "
        f"use transformers' attention interface"
    )


def _register(implementation: str) -> str:
    name = _RECORDING + implementation

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        function = _delegate(module, implementation)
        # Flash attention picks its kernel by the name in the config.
        config: Any = module.config
        config._attn_implementation_internal = implementation
        try:
            result = function(module, query, key, value, *args, **kwargs)
        finally:
            config._attn_implementation_internal = name
        # a second model with the same config also gets here: it is not recorded
        recorder = _RECORDERS.get(module)
        if recorder is not None:
            recorder.add(module, query, _form_of_call(module, query, kwargs), result[0])
        return result

    AttentionInterface.register(name, attention)
    masks = AttentionMaskInterface()
    if implementation in masks:
        # without a mask function of the same name the padding mask would be missing
        AttentionMaskInterface.register(name, masks[implementation])
    return name


def _watch_method(
    module: Any, form_of: Callable[[Any, float], LayerForm], recorder: QueryRecorder
) -> None:
    """Record the queries that a module of an older family passes to its `_attn` method."""
    method = module._attn

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = method(query, key, value, *args, **kwargs)
        form = form_of(module, query.shape[-1] ** -0.5)
        recorder.add(module, query, form, result[0].transpose(1, 2))
        return result

    module._attn = attend


@contextmanager
def record_queries(model: nn.Module) -> Iterator[QueryRecorder]:
    """Record the post-rotary queries of every forward of `model` inside the block.

    Structural losses and attention-based eviction need them. The configured attention (sdpa, eager,
    flash) still computes the result.

    Args:
        model: a Hugging Face model, or a module that holds one.

    Yields:
        A `QueryRecorder`: `recorder.forwards[i][layer]` is [B, Hq, T, D] with gradients, and
        `recorder.stacked(i)` is [B, L, Hq, T, D]. Its tensors outlive the block.

    Raises:
        ValueError: the model holds no attention that can be recorded, is being recorded
            already, or would recompute its layers under activation checkpointing.

    Example:
        >>> with record_queries(student) as recorder:
        ...     for _ in range(num_latents):
        ...         outputs = student(inputs_embeds=latent, past_key_values=cache)
        >>> torch.cat([recorder.stacked(i) for i in range(num_latents)], dim=3)
    """
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not models:
        raise ValueError(f"{type(model).__name__} holds no Hugging Face model to record")
    for inner in models:
        refuse_checkpointing(inner)
        if not can_record(type(inner), inner.config.model_type):
            raise ValueError(
                f"the queries of {type(inner).__name__} cannot be recorded: it does not use "
                f"transformers' attention interface; {WITHOUT_ATTENTION}"
            )
    recorder = QueryRecorder()
    modules = list(model.modules())
    if any(module in _RECORDERS for module in modules):
        raise ValueError(f"{type(model).__name__} is being recorded already: do not nest the block")
    configs = {id(inner.config): inner.config for inner in models}.values()
    saved = [(config, config._attn_implementation) for config in configs]
    older = {
        module: OLDER_FAMILIES[inner.config.model_type]
        for inner in models
        if inner.config.model_type in OLDER_FAMILIES
        for module in inner.modules()
        if hasattr(type(module), "_attn")
    }
    try:
        for config, implementation in saved:
            if config.model_type not in OLDER_FAMILIES:
                config._attn_implementation_internal = _register(implementation or "eager")
        _RECORDERS.update(dict.fromkeys(modules, recorder))
        for module, form_of in older.items():
            _watch_method(module, form_of, recorder)
        yield recorder
    finally:
        for module in older:
            vars(module).pop("_attn", None)
        for module in modules:
            _RECORDERS.pop(module, None)
        for config, implementation in saved:
            config._attn_implementation_internal = implementation


def can_record(kind: type[PreTrainedModel], model_type: str) -> bool:
    """Whether the queries of a class of models can be recorded."""
    return kind._can_set_attn_implementation() or model_type in OLDER_FAMILIES


def check_records(config: PreTrainedConfig, name: str, reason: str) -> None:
    """Refuse a model whose queries cannot be recorded, from its configuration only.

    Args:
        config: configuration of a causal text model.
        name: name of the model in messages.
        reason: what needs attention, such as a flag.

    Raises:
        ValueError: a family that does not use transformers' attention interface.

    Example:
        >>> check_records(LlamaConfig(), "models/llama", "--kv_method rkv")
    """
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is not None and not can_record(kind, config.model_type):
        raise ValueError(
            f"the queries of {name!r} ({config.model_type}) cannot be recorded: its code does not "
            f"use transformers' attention interface, and {reason} looks at attention; "
            f"{WITHOUT_ATTENTION}"
        )


def refuse_checkpointing(model: PreTrainedModel) -> None:
    """Refuse a model that would compute its layers twice (activation checkpointing).

    Raises:
        ValueError: activation checkpointing in training.
    """
    if model.training and model.is_activation_checkpointing:
        raise ValueError(
            f"{type(model).__name__} has activation (gradient) checkpointing on, which empties "
            f"its key/value cache in training: call model.gradient_checkpointing_disable(), and "
            f"kava.models.recompute.recompute_layers(model), which keeps it"
        )
