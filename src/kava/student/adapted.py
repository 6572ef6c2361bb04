"""Students with LoRA adapters on disk: the adapters and what the student adds, not its base.

    checkpoint-400/
        adapter/adapter_config.json, adapter_model.safetensors      as peft writes them
        config.json, model.safetensors      of a latent student: thought vectors, projection
        generation_config.json              of a latent student: the end and length of answers

The base model is named in adapter_config.json and loaded from there in the dtype that it had in
training; what was trained is float32. `kava merge` makes an ordinary checkpoint of such a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from kava.models.devices import choose_device, dtype_of
from kava.models.load import load_model
from kava.models.lora import (
    adapter_state,
    add_lora,
    has_lora,
    load_adapters,
    read_form,
    save_adapters,
)
from kava.models.weights import read_tensors
from kava.student.config import LatentStudentConfig, base_of, is_latent
from kava.student.settings import read_settings
from kava.student.whole import ADAPTER_FOLDER, WEIGHTS_FILE, is_adapted

_OF_DOWNLOADS = {
    *("config", "trust_remote_code", "adapter_kwargs", "_from_auto", "_commit_hash", "cache_dir"),
    *("force_download", "local_files_only", "token", "revision", "code_revision", "subfolder"),
    *("use_safetensors", "low_cpu_mem_usage"),
}
BASE_DTYPE = "base_dtype"
"""Key of `kava.json`: the dtype in which the frozen base was read; left out: float32."""


def added_state(student: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a latent student outside its base; none of another student."""
    if not is_latent(student):
        return {}
    return {
        name: part for name, part in student.state_dict().items() if not name.startswith("base.")
    }


def stored_state(student: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that a checkpoint of a student stores, by name."""
    if not has_lora(base_of(student)):
        return dict(student.state_dict())
    return {**adapter_state(base_of(student)), **added_state(student)}


def save_weights(
    directory: Path, student: PreTrainedModel, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write a student's weights and configuration, without its base if it has adapters.

    Args:
        directory: where.
        student: the student.
        state: the weights of one without adapters; None: its own.

    Raises:
        OSError, SafetensorError: a file could not be written.
    """
    if not has_lora(base_of(student)):
        # one file of any size: its header shows whether the weights are complete
        student.save_pretrained(
            directory, max_shard_size="100TB", state_dict=None if state is None else dict(state)
        )
        return
    save_adapters(directory / ADAPTER_FOLDER, base_of(student))
    if is_latent(student):
        student.config.save_pretrained(directory)
        if student.generation_config is not None:  # where answers end, and how long they may be
            student.generation_config.save_pretrained(directory)
        added = {name: part.contiguous() for name, part in added_state(student).items()}
        save_file(added, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def load_adapted(
    folder: Path,
    settings: Mapping[str, Any],
    latent: Callable[..., PreTrainedModel],
    *,
    dtype: torch.dtype | str = "auto",
) -> PreTrainedModel:
    """Load a student with adapters and its base model.

    Args:
        folder: a checkpoint with adapters.
        settings: content of its `kava.json`.
        latent: makes a latent student of a configuration and `base_model`: `LatentStudent`.
        dtype: of all weights; "auto" is that of training.

    Raises:
        OSError: a file is missing or damaged, or the base model cannot be loaded.
        ValueError: files that do not fit each other or the base model.
    """
    form, name = read_form(folder / ADAPTER_FOLDER)
    try:
        base = load_model(name, dtype=settings.get(BASE_DTYPE, "float32"))
    except (OSError, ValueError) as error:
        raise type(error)(
            f"{folder} holds LoRA adapters for {name}, which cannot be loaded: {error}"
        ) from error
    student: PreTrainedModel = base
    if settings["student"] == "latent":
        config = LatentStudentConfig.from_pretrained(folder)
        made: Any = latent(config, base_model=base)
        made.cast_added(torch.float32)
        student = made
    add_lora(base, form, name)
    load_adapted_weights(folder, student)
    if isinstance(dtype, torch.dtype):
        student.to(dtype=dtype)  # type: ignore[call-arg]
    return student


def from_checkpoint(
    folder: Path, latent: Callable[..., PreTrainedModel], options: Mapping[str, Any]
) -> Any:
    """`from_pretrained` for a checkpoint with adapters, which has its base elsewhere.

    Args:
        folder: the checkpoint.
        latent: as `load_adapted` takes it.
        options: of transformers' `from_pretrained`: dtype, device_map as one device,
            attn_implementation and output_loading_info are followed, those about downloads have
            no effect.

    Returns:
        the student in evaluation mode, and what loading reports where that is asked for.

    Raises:
        OSError, ValueError: as `load_adapted`, or another option, which is named.
    """
    settings = read_settings(folder)
    given = {name: value for name, value in options.items() if value not in (None, False, {})}
    dtype = given.pop("torch_dtype", given.pop("dtype", "auto"))
    where = given.pop("device_map", None)
    # AutoModelForCausalLM has moved it into the configuration
    asked = getattr(given.get("config"), "_attn_implementation", None)
    attention = given.pop("attn_implementation", asked)
    report = given.pop("output_loading_info", False)
    for name in given.keys() - _OF_DOWNLOADS:
        raise ValueError(
            f"{name}={given[name]!r} cannot be followed for {folder}, which holds LoRA adapters "
            f"without their base model: leave it out, or make the checkpoint whole by kava merge"
        )
    student = load_adapted(folder, settings, latent, dtype=dtype_of(dtype)).eval()
    if (folder / GENERATION_CONFIG_NAME).is_file():  # one of an earlier version has none
        student.generation_config = GenerationConfig.from_pretrained(folder)
    if attention is not None:
        for part in (student, base_of(student)):
            part.set_attn_implementation(attention)
    if where is not None:
        device = where.get("", where) if isinstance(where, Mapping) else where
        device = f"cuda:{device}" if isinstance(device, int) else str(device)
        student.to(choose_device(device))
    return (student, {}) if report else student


def load_adapted_weights(folder: Path, student: PreTrainedModel) -> None:
    """Load the weights of a checkpoint with adapters into a student of the same form.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: weights of other names or shapes, or a checkpoint or student without adapters.
    """
    base = base_of(student)
    if not has_lora(base):
        raise ValueError(
            f"{folder} holds LoRA adapters, and this student has none: pass the same --lora flags, "
            f"or make it whole by kava merge"
        )
    if not is_adapted(folder):
        raise ValueError(
            f"{folder} holds whole weights, and this student has LoRA adapters, whose base they "
            f"would have to be: leave the --lora flags out"
        )
    load_adapters(folder / ADAPTER_FOLDER, base)
    ours = added_state(student)
    theirs = read_tensors(folder / WEIGHTS_FILE) if ours else {}
    for name, part in ours.items():
        if name not in theirs or theirs[name].shape != part.shape:
            raise ValueError(f"{folder / WEIGHTS_FILE}: {name!r} is missing or has another shape")
    student.load_state_dict(theirs, strict=False)
