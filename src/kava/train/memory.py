"""Checks of the flags that save memory, against each other and against the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kava.train.settings import Settings
from kava.train.teacher_names import teachers_of

if TYPE_CHECKING:
    import torch


def check_memory(config: Settings) -> None:
    """Check the flags that save memory against the others of a configuration.

    Raises:
        ValueError: the first conflict; the message names the flags and the mend.
    """
    frozen = config.teacher_name is not None and not config.adapter_off
    quantised = [one for one in config.teacher_quantization or () if one != "none"]
    asked = {
        f"--teacher_quantization {' '.join(quantised)}": bool(quantised),
        "--teacher_offload": config.teacher_offload,
        f"--capture_chunk {config.capture_chunk}": config.capture_chunk is not None,
    }
    for flag, given in asked.items():
        if given and not frozen:
            raise ValueError(
                f"{flag} is about a frozen teacher, and the weights of this run's are the "
                f"student's: name a --teacher_name, or leave it out"
            )
    teachers_of(config)
    if quantised and config.teacher_offload:
        raise ValueError(
            "--teacher_offload moves weights of floating point, and --teacher_quantization packs "
            "them for one device: leave one of the two out"
        )
    if config.capture_chunk is not None and config.kv_method.startswith("knockout"):
        raise ValueError(
            f"--kv_method {config.kv_method} scores positions by whole readings of a text, which "
            f"--capture_chunk {config.capture_chunk} avoids: choose another method, or leave it out"
        )
    if quantised and config.kv_method == "knockout_gradient":
        raise ValueError(
            "--kv_method knockout_gradient differentiates through the teacher, whose quantised "
            "layers round: choose another method, or leave --teacher_quantization out"
        )


def check_device_memory(config: Settings, device: torch.device) -> None:
    """Refuse what saves memory on other devices alone, before data and models are read.

    Raises:
        KavaError: bitsandbytes is needed and not installed.
        ValueError: a flag that does nothing on this device, or that it cannot do.
    """
    from kava.models.quantise import check_bitsandbytes, check_quantization

    if config.teacher_offload and device.type == "cpu":
        raise ValueError(
            f"--teacher_offload moves the teacher between the CPU and an accelerator, and --device "
            f"{config.device} is the CPU here: leave it out"
        )
    bits = {one.quantization for one in teachers_of(config)} - {"none"}
    for quantization in sorted(bits):
        check_quantization(quantization, device)
    if "8bit" in config.optim:
        check_bitsandbytes()
        if config.optim.startswith("paged") and device.type != "cuda":
            raise ValueError(
                f"--optim {config.optim} pages states between a CUDA GPU and the CPU, and --device "
                f"{config.device} is {device.type}: pass --optim adamw_8bit"
            )
