"""LoRA adapters (arXiv 2106.09685) in a causal model, by peft: extra `lora`.

A model keeps its class; low-rank matrices stand beside its linear layers, and they alone are
trained. On disk they have peft's form, adapter_config.json and adapter_model.safetensors, which
peft and transformers load too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kava.inputs import Malformed, read_json
from kava.models.weights import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
"""Every linear layer but the output head."""
_PREFIX = "base_model.model."
"""What peft puts before the name of a weight."""


@dataclass(frozen=True)
class LoraForm:
    """What adapters a model has.

    Args:
        rank: r, of the added matrices B·A.
        alpha: they are scaled by α / r.
        dropout: of what they read, in training.
        targets: the last names of the layers that have them, or ("all-linear",).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)


def add_lora(model: PreTrainedModel, form: LoraForm, name: str | None = None) -> None:
    """Put adapters into a model, in place; all other weights are frozen.

    B starts at zero, so that the model is unchanged at first; A is drawn from torch's generator.
    Adapters of a model in half precision are float32, in which small updates are not lost.

    Args:
        model: a causal model without adapters.
        form: of the adapters.
        name: the model's name or folder, recorded as the base of the adapters.

    Raises:
        ImportError: peft is not installed.
        ValueError: targets that match no layer.

    Example:
        >>> add_lora(model, LoraForm(rank=8, alpha=16, targets=("q_proj", "v_proj")))
    """
    if name is not None and Path(name).exists():
        name = str(Path(name).resolve())  # a checkpoint is read from anywhere
    config = _peft().LoraConfig(
        task_type="CAUSAL_LM",
        r=form.rank,
        lora_alpha=form.alpha,
        lora_dropout=form.dropout,
        target_modules=ALL_LINEAR if form.targets == (ALL_LINEAR,) else list(form.targets),
        base_model_name_or_path=name,
    )
    _check_targets(model, form.targets)
    with warnings.catch_warnings():
        # peft turns fan_in_fan_out on for GPT-2's layers by itself, and says so
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        model.add_adapter(config, adapter_name="default")
    for part in adapter_parameters(model):
        part.data = part.data.to(torch.promote_types(part.dtype, torch.float32))
    if name is not None:  # transformers puts the name by which it loaded the model itself
        model.peft_config["default"].base_model_name_or_path = name


def has_lora(model: PreTrainedModel) -> bool:
    """Whether a model has adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def lora_off(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model reads as it did before it got its adapters."""
    layers = list(_layers(model))
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def adapter_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The adapters' parameters."""
    return [part for name, part in model.named_parameters() if _is_adapter(name)]


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapters' weights, by their names in the model."""
    return {name: part for name, part in model.state_dict().items() if _is_adapter(name)}


def save_adapters(directory: str | Path, model: PreTrainedModel) -> None:
    """Write a model's adapters as peft does.

    Raises:
        OSError, SafetensorError: a file could not be written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].save_pretrained(folder)
    stored = {_stored_name(name): part.contiguous() for name, part in adapter_state(model).items()}
    save_file(stored, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def load_adapters(directory: str | Path, model: PreTrainedModel) -> None:
    """Load adapters' weights into a model that has adapters of the same form.

    Raises:
        OSError: the file is missing or damaged.
        ValueError: weights of other names or shapes, or not finite.
    """
    path = Path(directory) / ADAPTER_WEIGHTS
    weights = {_own_name(name): part for name, part in read_tensors(path).items()}
    ours = adapter_state(model)
    strange = [
        name
        for name in sorted({*weights, *ours})
        if name not in ours or name not in weights or weights[name].shape != ours[name].shape
    ]
    if strange:
        raise ValueError(
            f"{path} holds the adapters of another model or form: {strange[0]!r} does not match"
        )
    model.load_state_dict(weights, strict=False)


def read_form(directory: str | Path) -> tuple[LoraForm, str]:
    """The form of a folder's adapters, and the name of the model that they belong to.

    Raises:
        OSError: the file is missing.
        ValueError: it is damaged, or describes something else than plain LoRA.
    """
    path = Path(directory) / ADAPTER_CONFIG
    if not path.is_file():
        raise OSError(f"{path} is missing: the checkpoint is incomplete; take another")
    try:
        found: Any = read_json(path)
        kind, targets = found["peft_type"], found["target_modules"]
        names = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
        form = LoraForm(
            int(found["r"]), float(found["lora_alpha"]), float(found["lora_dropout"]), names
        )
        base = found["base_model_name_or_path"]
    except (Malformed, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); take another checkpoint") from error
    if kind != "LORA" or not isinstance(base, str):
        raise ValueError(
            f"{path} describes adapters of kind {kind!r} for {base!r}: kava reads LoRA adapters "
            f"that name their model"
        )
    return form, base


def merge_lora(model: PreTrainedModel) -> None:
    """Add the adapters to the weights that they stand beside, and remove them, in place.

    A model in half precision becomes float32 where its adapters are: the sum would be rounded.

    Raises:
        ValueError: the model has none.
    """
    if not has_lora(model):
        raise ValueError(f"{type(model).__name__} has no adapters to merge")
    from peft.tuners.tuners_utils import BaseTunerLayer

    wider = torch.promote_types(model.dtype, adapter_parameters(model)[0].dtype)
    model.to(dtype=wider)  # type: ignore[call-arg]
    parents = {
        f"{name}.{child}".removeprefix("."): (module, child)
        for name, module in model.named_modules()
        for child, part in module.named_children()
        if isinstance(part, BaseTunerLayer)
    }
    for module, child in parents.values():
        layer: Any = getattr(module, child)
        layer.merge(safe_merge=True)
        setattr(module, child, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    model.requires_grad_(True)


def linear_layers(model: nn.Module) -> list[str]:
    """The last names of a model's linear layers, without the output head's.

    Example:
        >>> linear_layers(load_model("kava/tiny-llama"))[:2]
        ['down_proj', 'gate_proj']
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, kinds) and module is not head
        }
    )


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    if targets == (ALL_LINEAR,):
        return
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ValueError(
                f"--lora_targets {target} matches no layer of {type(model).__name__}: choose from "
                f"{', '.join(linear_layers(model))}, or {ALL_LINEAR}"
            )


def _layers(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _own_name(stored: str) -> str:
    """`base_model.model.….lora_A.weight` of a file is `….lora_A.default.weight` in the model."""
    module, _, last = stored.removeprefix(_PREFIX).rpartition(".")
    return f"{module}.default.{last}"


def _stored_name(name: str) -> str:
    return _PREFIX + name.replace(".default.", ".")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "LoRA needs the package peft: pip install -c constraints.txt '.[lora]'"
        ) from error
    return peft
