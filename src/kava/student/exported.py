"""A latent student as a plain model and a small side file, for runtimes that are not this package.

    config.json, model.safetensors, …   the base model, which any program reads as what it is
    kava_latent.json                    number of latents, decoding, prompt, ends of answers
    kava_latent.safetensors             the vectors and the projection that are added to the base
    tokenizer.json, …                   the tokenizer, with the prompt as its chat template

docs/sharing.md says how a runtime has to run it.

Shapes: M latents, W width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from kava.data.records import Template
from kava.files.write import naming
from kava.inputs import Malformed, read_json, shown
from kava.models.load import load_model, load_model_config
from kava.models.weights import check_finite, tensors_damage
from kava.student.adapted import added_state
from kava.student.config import LatentStudentConfig
from kava.student.endings import end_ids
from kava.student.latent import LatentStudent
from kava.student.ready import set_ends, settle_answers, with_prompt
from kava.student.settings import template_of

SIDE_SETTINGS = "kava_latent.json"
SIDE_TENSORS = "kava_latent.safetensors"
MARK = "kava_latent_base"
"""Key of the base model's config.json: it says that the model is the base of a latent student."""

FORMAT = 1


def write_exported(
    folder: Path,
    student: LatentStudent,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    settings: Mapping[str, Any],
) -> None:
    """Write a latent student into a folder that is there.

    Args:
        folder: where to.
        student: the student; LoRA adapters are merged before (`kava.models.lora.merge_lora`).
        tokenizer: its tokenizer.
        template: of its training.
        settings: of its checkpoint; `data_hash`, `step` and `config.max_new_tokens` are kept.

    Raises:
        OSError: a file cannot be written.
    """
    settle_answers(student, tokenizer, settings)
    config, generation = student.config, student.generation_config
    jacobi = config.decoding == "jacobi"
    side = {
        "format": FORMAT,
        "num_latents": config.num_latents,
        "decoding": config.decoding,
        "num_iterations": config.num_iterations if jacobi else None,
        "thought_positions": config.thought_positions,
        "template": asdict(template),
        "eos_token_ids": end_ids(student.base, tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "max_new_tokens": generation.max_new_tokens,
        **{name: settings[name] for name in ("data_hash", "step") if name in settings},
    }
    text = json.dumps(side, indent=2, ensure_ascii=False) + "\n"
    with naming(folder / SIDE_SETTINGS):
        (folder / SIDE_SETTINGS).write_text(text, encoding="utf-8")
    added = {name: part.cpu().contiguous() for name, part in added_state(student).items()}
    base = student.base
    set_ends(base, tokenizer)
    setattr(base.config, MARK, True)
    try:
        save_file(added, folder / SIDE_TENSORS, metadata={"format": "pt"})
        base.save_pretrained(folder)
        with_prompt(tokenizer, template).save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"{folder} could not be written: {error}") from error
    finally:
        delattr(base.config, MARK)


def is_exported(source: str | Path) -> bool:
    """Whether a folder or a name on the hub holds the base of a latent student.

    Raises:
        ValueError, OSError: as `load_model_config`, of a name on the hub.
    """
    folder = Path(source)
    if not folder.is_dir():
        return hasattr(load_model_config(source), MARK)
    if (folder / SIDE_SETTINGS).is_file():
        return True
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and MARK in config


def load_exported(
    source: str | Path, *, dtype: torch.dtype | str = "auto"
) -> tuple[LatentStudent, dict[str, Any]]:
    """Load what `write_exported` wrote; its answers are those of the checkpoint.

    Args:
        source: a folder, or a name on the hub.
        dtype: of the weights, or its name; "auto" takes the files' dtype.

    Returns:
        the student in evaluation mode, and its settings in the form of `kava.json`.

    Raises:
        OSError: a file that is missing or cannot be read.
        ValueError: a damaged file, one of another version, or tensors that do not fit the base.

    Example:
        >>> student, settings = load_exported("exported")
    """
    settings_file, tensors_file = (_file(source, name) for name in (SIDE_SETTINGS, SIDE_TENSORS))
    side = _read_side(settings_file)
    if (damage := tensors_damage(tensors_file)) is not None:
        raise ValueError(f"{damage}; export the student again")
    base = load_model(source, dtype=dtype)
    vars(base.config).pop(MARK, None)
    try:
        iterations = side["num_iterations"]
        jacobi: dict[str, Any] = {} if iterations is None else {"num_iterations": iterations}
        config = LatentStudentConfig(
            base_config=base.config.to_dict(),
            num_latents=side["num_latents"],
            decoding=side["decoding"],
            thought_positions=side["thought_positions"],
            **jacobi,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{settings_file} is damaged ({error}); export it again") from error
    student = LatentStudent(config, base_model=base)
    student.to(dtype=base.dtype)  # type: ignore[call-arg]
    _fill(student, tensors_file)
    generation = student.generation_config
    generation.pad_token_id = side.get("pad_token_id")
    generation.max_new_tokens = side.get("max_new_tokens") or generation.max_new_tokens
    settings: dict[str, Any] = {
        "student": "latent",
        "template": side["template"],
        "config": {"max_new_tokens": generation.max_new_tokens},
        **{name: side[name] for name in ("data_hash", "step") if name in side},
    }
    return student.eval(), settings


def _fill(student: LatentStudent, path: Path) -> None:
    """Give a student the tensors of its side file."""
    tensors = load_file(path)
    own = added_state(student)
    for name in sorted(own.keys() ^ tensors.keys()):
        raise ValueError(
            f"{path} does not fit {SIDE_SETTINGS} beside it: {name!r} is in one of them only"
        )
    check_finite(tensors.items(), path)
    for name, part in own.items():
        if part.shape != tensors[name].shape:
            raise ValueError(
                f"{path} does not fit its base model: {name!r} is {list(tensors[name].shape)}, "
                f"the base needs {list(part.shape)}"
            )
        with torch.no_grad():
            part.copy_(tensors[name])


def _file(source: str | Path, name: str) -> Path:
    """A file of a folder, or of a repository on the hub.

    Raises:
        OSError: it is not there, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            raise OSError(
                f"{path} is missing: the folder holds the base of a latent student without what "
                f"makes it one; export the student again"
            )
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(source), name))
    except Exception as error:  # no such file, no network, no access, …
        reason = " ".join(str(error).split())
        raise OSError(
            f"{str(source)!r} is the base of a latent student, and the hub gave no {name} "
            f"({reason})"
        ) from error


def _read_side(path: Path) -> dict[str, Any]:
    try:
        side = read_json(path)
    except Malformed as error:
        raise ValueError(f"{path} is damaged ({error}); export the student again") from error
    found = side.get("format") if isinstance(side, dict) else None
    if type(found) is not int or found != FORMAT:
        raise ValueError(
            f"{path} has format {shown(found)}, this version of kava reads {FORMAT}: use the "
            f"version that wrote it, or export the student again"
        )
    for name in ("num_latents", "decoding", "num_iterations", "thought_positions"):
        if name not in side:
            raise ValueError(f"{path} is damaged: it has no {name!r}; export the student again")
    template_of(side, path)
    return dict(side)
