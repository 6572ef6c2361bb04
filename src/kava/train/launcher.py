"""What a launcher asks for in the environment, and what of it training can do."""

from __future__ import annotations

import os

import torch

from kava.train.config import TrainConfig

OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
"""What `accelerate launch` sets, and what it asks for."""
_MEMORY = "--lora_r, --gradient_checkpointing, --optim adamw_8bit or --teacher_quantization"


def shares_weights() -> bool:
    """Whether the launcher asks for weights that the processes share out (FSDP)."""
    return _is_set("ACCELERATE_USE_FSDP")


def check_launcher(config: TrainConfig, device: torch.device) -> None:
    """Refuse what a launcher asks for and training cannot do.

    Args:
        config: the run's configuration.
        device: the run's device.

    Raises:
        ValueError: names what was asked for, and what can be done instead.
    """
    for name, what in OTHERS.items():
        if _is_set(name):
            raise ValueError(
                f"{name}={os.environ[name]}: kava train does not work with {what}: leave it out "
                f"of accelerate's flags or file, and save memory by {_MEMORY}"
            )
    said = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    ours = "bf16" if config.bf16 else "fp16" if config.fp16 else "no"
    if said not in ("no", ours):
        mend = f"pass --{said} to kava train, or " if said in ("bf16", "fp16") else "pass "
        raise ValueError(
            f"ACCELERATE_MIXED_PRECISION={said} sets a precision that the run would not record: "
            f"{mend}--mixed_precision no to accelerate launch"
        )
    if not shares_weights():
        return
    if device.type == "cpu":
        raise ValueError(
            "ACCELERATE_USE_FSDP=true on the CPU: accelerate shares out weights on GPUs alone; "
            "leave out --use_fsdp, and each process has the whole student"
        )
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError("FSDP 1 is not supported: pass --fsdp_version 2 to accelerate launch")
    if _is_set("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise ValueError(
            "FSDP_CPU_RAM_EFFICIENT_LOADING=true leaves the teacher without weights in all "
            "processes but the first: pass --fsdp_cpu_ram_efficient_loading false to accelerate "
            "launch"
        )
    refused = {
        "--lora_r": bool(config.lora_r),
        "--teachers": config.several,
        "--fp16": config.fp16,
        "--batch_size auto": config.auto_batch,
        f"--optim {config.optim}": config.optim not in ("adamw_torch", "adamw_torch_fused"),
    }
    for flag, given in refused.items():
        if given:
            raise ValueError(
                f"{flag} has not been tried with weights that processes share out (FSDP): leave "
                f"it out, or leave out --use_fsdp"
            )


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
