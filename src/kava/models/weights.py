"""Check that weight files are complete and weights are finite.

A model with NaN weights still answers, but every answer is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

_GIT_LFS = b"version https://git-lfs"


def tensors_damage(path: Path) -> str | None:
    """What is wrong with a safetensors file, or None. No tensor is read.

    Example:
        >>> tensors_damage(Path("models/gpt2/model.safetensors"))
    """
    if not path.is_file():
        return f"{path} is missing"
    try:
        with safe_open(path, framework="pt"):  # reads the header, and checks the file's length
            return None
    except SafetensorError as error:
        with path.open("rb") as file:
            if file.read(len(_GIT_LFS)) == _GIT_LFS:
                return f"{path} is a pointer of Git LFS, not the weights (git lfs pull gets them)"
        return f"{path} is damaged or truncated ({error})"


def read_tensors(path: Path, mend: str = "take another checkpoint") -> dict[str, Tensor]:
    """The tensors of a file of a checkpoint.

    Args:
        path: a safetensors file.
        mend: what helps where it is missing or damaged.

    Raises:
        OSError: it is missing or damaged.
        ValueError: a tensor that is not finite.

    Example:
        >>> read_tensors(Path("outputs/run/checkpoint-500/model.safetensors"))
    """
    if not path.is_file():
        raise OSError(f"{path} is missing: the checkpoint is incomplete; {mend}")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is damaged ({error}); {mend}") from error
    check_finite(state.items(), path)
    return state


def check_finite(named: Iterable[tuple[str, Tensor]], source: str | Path) -> None:
    """Refuse weights with NaN or infinity; every number is read once.

    Args:
        named: names and tensors, such as `model.named_parameters()` or a file's `.items()`. Integer
            tensors and tensors without storage are skipped.
        source: their source, for the message.

    Raises:
        ValueError: names the first tensor that is not finite, and the share of such numbers.

    Example:
        >>> check_finite(model.named_parameters(), "models/gpt2")
    """
    for name, part in named:
        if part.is_meta or not part.is_floating_point() or not part.numel():
            continue
        part = part.detach()
        # minimum and maximum are NaN if any number is; this needs no mask of the tensor's size
        if bool(torch.stack(torch.aminmax(part)).isfinite().all()):
            continue
        num_bad = int((~part.isfinite()).sum())
        fits = (
            "; float16 ends at 65504: load it in float32 or bfloat16"
            if part.dtype == torch.float16
            else ": the file is broken, or the run that wrote it failed; take another"
        )
        raise ValueError(
            f"the weights of {str(source)!r} are not finite: {num_bad:,} of {part.numel():,} "
            f"numbers of {name!r} are NaN or infinite{fits}"
        )
