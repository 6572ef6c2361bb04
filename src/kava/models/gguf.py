"""Models in GGUF, the format of llama.cpp: FOLDER/x.gguf in the place of a model's name.

transformers reads the file: its configuration, its weights, unpacked into an ordinary model, and
its tokenizer where the folder has none of its own. Weights that were quantised stay as coarse as
they are in the file; trained and saved, the model is one in safetensors.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SUFFIX = ".gguf"
TOKENIZER_FILE = "tokenizer.json"
_MAGIC = b"GGUF"


def gguf_name(model: str | None, file: str | None, flag: str) -> str | None:
    """A model's name with the file that a flag of its own gives.

    Args:
        model: the folder, or the model on the hub.
        file: the file in it; None where the name is whole.
        flag: the flag that gives the file, for messages.

    Raises:
        ValueError: another file than one in GGUF, a file of no model, or of one that names another.

    Example:
        >>> gguf_name("models/x", "x-Q8_0.gguf", "--gguf_file")
        'models/x/x-Q8_0.gguf'
    """
    if file is None:
        return model
    if not file.endswith(SUFFIX):
        raise ValueError(f"{flag} {file} must end with {SUFFIX}")
    if model is None:
        raise ValueError(f"{flag} {file} lies in the folder of a model, and none is named")
    if model.endswith(SUFFIX):
        raise ValueError(f"{flag} {file} and the model {model} each name a file: leave one out")
    return f"{model.rstrip('/')}/{file}"


def gguf_parts(source: str) -> tuple[str, str] | None:
    """Folder, or model on the hub, and file of a model in GGUF; None for another one.

    Example:
        >>> gguf_parts("org/model/x.gguf"), gguf_parts("org/model")
        (('org/model', 'x.gguf'), None)
    """
    if not source.endswith(SUFFIX):
        return None
    folder, _, file = source.rpartition("/")
    return folder or ".", file


def resolve_gguf(path: Path, name: str) -> str:
    """The source of a model in GGUF, checked.

    Args:
        path: the name as a path.
        name: as it was given.

    Raises:
        OSError: no such file, or the package gguf is not installed.
        ValueError: a file that is not in this format.
    """
    if importlib.util.find_spec("gguf") is None:
        raise OSError(f"{name!r} needs the package gguf: pip install -c constraints.txt '.[gguf]'")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError(f"{name!r} is no GGUF file; download it again")
        return str(path)
    if path.parent.is_dir() and str(path.parent) != ".":
        there = sorted(one.name for one in path.parent.glob(f"*{SUFFIX}"))
        raise OSError(
            f"the file {name!r} does not exist; "
            f"{path.parent} holds {', '.join(there) or f'no {SUFFIX} file'}"
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 2:
        raise OSError(
            f"the file {name!r} does not exist; pass FOLDER/FILE{SUFFIX}, or USER/MODEL/FILE"
            f"{SUFFIX} for a model on the hub"
        )
    return name


def load_options(source: str, *, tokenizer: bool = False) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes for a source: the folder or name, and the file where it has one.

    Args:
        source: a folder, a hub id, or a model in GGUF.
        tokenizer: for the tokenizer, which is that of the folder where it has one.
    """
    parts = gguf_parts(source)
    if parts is None:
        return source, {}
    folder, file = parts
    if tokenizer and (Path(folder) / TOKENIZER_FILE).is_file():
        return folder, {}
    return folder, {"gguf_file": file}


def unpacked() -> dict[str, Any]:
    """The option that has weights unpacked; versions of transformers without it always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def make_plain(model: Any, source: str) -> None:
    """Make an unpacked model an ordinary one, which can be trained and saved.

    Which of the marks of a quantised model it has differs between versions of transformers.
    """
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        vars(model).pop(name, None)
    for name in ("quantization_config", "_is_quantized"):
        vars(model.config).pop(name, None)
    model.config.name_or_path = source
