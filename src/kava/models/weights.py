"""Files of weights that are whole, and weights that are numbers.

A model with NaN in it answers, and every answer is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_GIT_LFS = b"version https://git-lfs"


def tensors_damage(path: Path) -> str | None:
    """What is wrong with a file of safetensors; None where nothing is. No tensor is read.

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


def check_finite(named: Iterable[tuple[str, Tensor]], source: str | Path) -> None:
    """Refuse weights that hold NaN or infinity; every number is looked at once.

    Args:
        named: names and tensors, as `model.named_parameters()` or a file's `.items()` gives them.
            Whole numbers, and tensors without storage, are passed over.
        source: where they come from, for the message.

    Raises:
        ValueError: names the first tensor that is not finite, and how much of it.

    Example:
        >>> check_finite(model.named_parameters(), "models/gpt2")
    """
    for name, part in named:
        if part.is_meta or not part.is_floating_point() or not part.numel():
            continue
        part = part.detach()
        # the extremes are NaN where any number is; no mask of the tensor's size is made
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
