"""Load a class of transformers from a folder or the hub; any problem becomes one line."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import torch

from kava.models.gguf import load_options, make_plain, unpacked

_LOADING = threading.RLock()
"""`from_pretrained` replaces functions of transformers for a moment; of two threads that do so at
once, one puts back what the other had replaced, and no weights are tied from then on."""


def build_from(source: str, kind: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model from a folder or the hub, with transformers' report of the load.

    Args:
        source: a folder, a hub id, or a model in GGUF.
        kind: a class with `from_pretrained`.
        **options: options of `from_pretrained`.

    Raises:
        OSError: any problem with the configuration or the weights.
    """
    place, file = load_options(source)
    if file:
        options |= {**file, **unpacked()}
    # missing or unexpected weights become one line; transformers would print a table
    report = logging.getLogger("transformers.modeling_utils")
    with _LOADING:
        level = report.level
        report.setLevel(logging.ERROR)
        try:
            model, loaded = kind.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, **options
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an unreachable hub, a missing library, …
            raise OSError(unreadable("model", source, error)) from error
        finally:
            report.setLevel(level)
    if file:
        make_plain(model, source)
    return model, loaded


def unreadable(what: str, source: str, error: Exception) -> str:
    """Why a model or a tokenizer could not be loaded, and what to do.

    Args:
        what: model or tokenizer.
        source: a folder or hub id.
        error: what transformers raised.
    """
    reason = " ".join(str(error).split())
    if Path(source).exists():
        if Path(source).is_dir():
            return f"cannot load a {what} from the folder {source!r}: {reason}"
        return (
            f"cannot load a {what} from the file {source!r}: {reason}; if its download was cut "
            f"off, download it again"
        )
    return (
        f"cannot load the {what} {source!r}: no such folder, and the Hugging Face hub gave "
        f"nothing ({reason}); pass a local folder, or a built-in name such as kava/tiny-llama"
    )
