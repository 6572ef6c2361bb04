"""Where a student answers: the device that `--device` names."""

from __future__ import annotations

import torch


def choose_device(name: str) -> str:
    """The device of a name; "auto" is the accelerator where there is one, else the CPU.

    Raises:
        ValueError: it cannot be used here.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    if name == "auto":
        return (
            str(torch.accelerator.current_accelerator())
            if torch.accelerator.is_available()
            else "cpu"
        )
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here: {reason}") from error
    return name
