"""Check the content of a model's folder before loading it.

transformers reads a folder until the first error. Here the whole folder is checked, but only
headers and file lists, and a problem is reported in one line with its fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kava.flags import listed
from kava.inputs import read_json
from kava.models.places import CONFIG_FILE
from kava.models.weights import tensors_damage

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
ADAPTER_FILE = "adapter_config.json"
LATENT_STUDENT = "kava_latent"
"""The `model_type` of a latent student."""

_UNFINISHED = ("*.incomplete", "*.part", "*.crdownload", "*.tmp", "*.aria2")


def check_folder(folder: str | Path) -> None:
    """Refuse a folder without a loadable model, and say what the folder contains.

    Only headers and lists of files are read, no weights.

    Raises:
        OSError: an adapter, no configuration or no weights, or some of their files missing.
        ValueError: a file that is damaged or truncated, or a latent student.

    Example:
        >>> check_folder("models/SmolLM2-135M-Instruct")
    """
    folder = Path(folder)
    if (folder / ADAPTER_FILE).is_file():
        raise OSError(
            f"{str(folder)!r} holds an adapter of {_adapted(folder)}, and no model: merge it with "
            f"peft (AutoPeftModelForCausalLM.from_pretrained(…).merge_and_unload()"
            f".save_pretrained(…)), and pass the merged folder"
        )
    _check_config(folder)
    for path in _weights(folder):
        problem = tensors_damage(path)
        if problem is not None:
            raise ValueError(f"{problem}; download or save it again")


def tokenizer_damage(folder: str | Path) -> str | None:
    """Why a folder's tokenizer.json cannot be read; None where it can, or is not there.

    Example:
        >>> tokenizer_damage("models/SmolLM2-135M-Instruct") is None
        True
    """
    from tokenizers import Tokenizer

    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower one
        reason = " ".join(str(error).split())
        return f"{path} is damaged ({reason}); download or save it again"
    return None


def _adapted(folder: Path) -> str:
    try:
        return repr(read_json(folder / ADAPTER_FILE)["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError):
        return "another model"


def _check_config(folder: Path) -> None:
    path = folder / CONFIG_FILE
    failed = f"cannot load a model from the folder {str(folder)!r}: "
    if not path.is_file():
        inside = sorted(one.parent.name for one in folder.glob(f"*/{CONFIG_FILE}"))
        if inside:
            raise OSError(
                f"{failed}it holds no config.json itself, but {inside[-1]} in it does; pass "
                f"{str(folder / inside[-1])!r}"
            )
        raise OSError(failed + (_other_weights(folder) or "it holds no config.json"))
    try:
        config: Any = read_json(path)
    except ValueError as error:
        raise OSError(
            f"{failed}its config.json is damaged ({error}); download or save it again"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise OSError(
            f"{failed}its config.json names no model_type, such as llama; take the one that "
            f"belongs to the weights"
        )
    check_not_latent(config["model_type"], str(folder))


def check_not_latent(model_type: object, source: str) -> None:
    """Refuse a latent student where a plain model is read.

    Args:
        model_type: of its configuration.
        source: its folder or name, for the message.

    Raises:
        ValueError: it is one.
    """
    if model_type == LATENT_STUDENT:
        raise ValueError(
            f"{source!r} holds a latent student, which kava evaluate, generate and costs "
            f"read; here pass a plain model, such as the one that it was trained from"
        )


def _weights(folder: Path) -> Iterator[Path]:
    """The weight files; raises an error if one is missing."""
    if (folder / WEIGHTS_FILE).is_file():
        yield folder / WEIGHTS_FILE
        return
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            named = set(read_json(index)["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OSError(f"{index} is damaged ({error}); download or save it again") from error
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise OSError(
                f"{index} names {len(named)} files of weights, and {missing[0]} is missing"
                f"{f' with {len(missing) - 1} others' if len(missing) > 1 else ''}: the download "
                f"or copy is incomplete; fetch it again"
            )
        yield from (folder / name for name in sorted(named))
        return
    raise OSError(
        f"cannot load a model from the folder {str(folder)!r}: "
        + (_other_weights(folder) or f"it holds no weights ({WEIGHTS_FILE}); download them too")
    )


def _other_weights(folder: Path) -> str | None:
    """What the folder has instead of safetensors weights, and how to convert it."""
    kinds = {path.suffix for path in folder.iterdir() if path.is_file()}
    unfinished = [path for pattern in _UNFINISHED for path in folder.rglob(pattern)]
    if unfinished:
        return f"{unfinished[0].name} is half a download; fetch the model again"
    if ".gguf" in kinds:
        files = sorted(path.name for path in folder.glob("*.gguf"))
        return f"it holds {listed(files)} alone: pass the file, {str(folder / files[0])!r}"
    if ".safetensors" in kinds:
        name = next(folder.glob("*.safetensors")).name
        list_of = INDEX_FILE if (folder / CONFIG_FILE).is_file() else CONFIG_FILE
        return f"it holds {name} without {list_of}; download the whole model"
    if kinds & {".bin", ".pt", ".pth", ".ckpt"}:
        pickles = (path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        return (
            f"its weights are a pickle ({min(pickles, default='.ckpt')}), which can run code when "
            f"it is read, and KaVa reads safetensors alone; if you trust it, convert it by "
            f"AutoModelForCausalLM.from_pretrained(…).save_pretrained(…), and pass the new folder"
        )
    if kinds & {".h5", ".msgpack"}:
        return "its weights are of TensorFlow or Flax; take the model in safetensors"
    return None
