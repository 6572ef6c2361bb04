"""Devices and dtypes of models: the values of `--device` and `--dtype` in every command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kava.models.accelerators import why_no_cuda

if TYPE_CHECKING:
    import torch

DEVICE_HELP = "auto (an accelerator where there is one), cpu, cuda, cuda:1, … or mps"
"""Help text of `--device`."""

DTYPES = ("float32", "bfloat16", "float16")
"""Choices of `--dtype`."""

DTYPE_HELP = f"dtype in which weights are loaded: auto (that of the files), {', '.join(DTYPES)}"
"""Help text of `--dtype` in commands that do not compare or train models."""

_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device_name(name: str) -> None:
    """Refuse a string that is not a device name; `choose_device` checks that it exists.

    Raises:
        ValueError: another name than auto, cpu, cuda, cuda:N or mps.

    Example:
        >>> check_device_name("cuda:1")
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"--device {name!r} is unknown; choose auto, cpu, cuda, cuda:N (N = 0, 1, …) or mps"
        )


def check_dtype_name(name: str) -> None:
    """Refuse a string that is neither "auto" nor one of `DTYPES`.

    Raises:
        ValueError: another name.

    Example:
        >>> check_dtype_name("bfloat16")
    """
    if name not in ("auto", *DTYPES):
        raise ValueError(f"--dtype {name!r} is unknown; choose auto, {', '.join(DTYPES)}")


def check_device(name: str) -> None:
    """Refuse a missing device without initialising it, as needed before starting processes.

    Raises:
        ValueError: an unknown name, or a device that is not visible, with the reason.

    Example:
        >>> check_device("auto")
    """
    import torch

    check_device_name(name)
    if name.startswith("cuda"):
        _check_cuda(torch.device(name))
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "--device mps: no Apple GPU can be used here; pass --device cpu, or auto for the "
            "accelerator that there is"
        )


def choose_device(name: str) -> str:
    """The device for a name; "auto" is the accelerator if there is one, else the CPU.

    Raises:
        ValueError: an unknown name, or a device that cannot be used here, with the reason.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    import torch

    check_device(name)
    if name == "auto":
        found = torch.accelerator.is_available()
        return str(torch.accelerator.current_accelerator()) if found else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} cannot be used here: {reason}; pass --device cpu"
        ) from error
    return name


def _check_cuda(device: torch.device) -> None:
    import torch

    missing = why_no_cuda()
    if missing is not None:
        raise ValueError(
            f"--device {device}: no CUDA device is visible ({missing.reason}); {missing.mend}, or "
            f"pass --device cpu"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(
            f"--device {device}: {count} CUDA device{'s are' if count > 1 else ' is'} visible; "
            f"choose {there}"
        )


def dtype_of(name: torch.dtype | str) -> torch.dtype | str:
    """The dtype for a name; "auto", the dtype of a checkpoint, is returned unchanged.

    Raises:
        ValueError: another name.

    Example:
        >>> dtype_of("bfloat16")
        torch.bfloat16
    """
    import torch

    if isinstance(name, torch.dtype) or name == "auto":
        return name
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype={name!r} is unknown; choose auto, {', '.join(DTYPES)}")
    return dtype
